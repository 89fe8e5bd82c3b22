"""Where on a disk a folder is, or will be."""

import shutil
from pathlib import Path


def nearest(path: Path) -> Path:
    """The path itself where it is there, else the nearest of the folders around it that is."""
    return next(there for there in (path, *path.absolute().parents) if there.exists())


def free_bytes(folder: Path) -> int:
    """What is free on the disk that holds a folder, or will."""
    return shutil.disk_usage(nearest(folder)).free
