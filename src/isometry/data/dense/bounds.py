"""Where the files of a data set may lie: its annotations are the words of strangers, and its user named a folder."""

import os
from collections.abc import Iterable
from pathlib import Path


def leads_out(path: str, folders: Iterable[Path]) -> bool:
    """Whether a path, as it is written, lies in none of the folders; links that are on the disk are followed."""
    place = os.path.abspath(path)
    return not any(os.path.commonpath([place, whole]) == whole for whole in map(os.path.abspath, folders))
