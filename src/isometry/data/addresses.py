"""What the name or place of a data set would start: webdataset runs ``pipe:`` in a shell and fetches URLs by other
programs, `datasets` before 4.0 runs scripts, tensorflow_datasets fetches code for names with a colon."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from isometry.config import DataConfig
from isometry.config.paths import ADDRESS, expand_path
from isometry.errors import UserError

PLAIN = re.compile(r"[\w./@%+=,-]+")
"""A shard's name that means nothing else to a shell."""
REMOTE = ("hfds", "hfids", "tfds")
"""Schemes whose libraries may fetch what is not on this machine."""


def is_remote(dataset: str) -> bool:
    """Whether the library of ``--dataset`` may reach the network for it."""
    return dataset.partition("/")[0].lower() in REMOTE


def root_of(config: DataConfig) -> str | None:
    """``--data-dir`` for a library: the absolute path of a folder, in which no library sees an address; or an address
    that the command line allows.

    Raises:
        UserError: an address that it doesn't.
    """
    if not config.data_dir:
        return None
    folder = Path(expand_path(config.data_dir))
    if folder.is_dir() or not ADDRESS.match(config.data_dir):
        return str(folder.absolute())
    if not config.allow_commands:
        raise UserError(
            f"--data-dir {config.data_dir}: is no folder but an address, which starts a program, and recipes and saved "
            "runs never may: give it on the command line itself, with --allow-commands"
        )
    return config.data_dir


def check_name(scheme: str, name: str, dataset: str) -> None:
    """Raises UserError for the name of a data set whose library would run code of its authors."""
    if scheme == "tfds" and ":" in name:
        raise UserError(
            f"--dataset {dataset}: names with a colon run code of others; give a data set of "
            "tensorflow_datasets itself"
        )
    if scheme in ("hfds", "hfids") and _major("datasets") < 4:
        raise UserError(
            f"--dataset {dataset}: datasets before 4.0 runs scripts of data sets; pip install 'datasets>=4'"
        )


def _major(library: str) -> int:
    """The first number of an installed library's version; 0 if that is unknown."""
    try:
        return int(version(library).partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return 0


def check_shards(config: DataConfig, reader: Any) -> None:
    """Raises UserError for shards at an address whose names could be more than names; they are not opened yet."""
    info = getattr(reader, "split_info", None)
    if config.allow_commands and root_of(config) == config.data_dir:
        for shard in getattr(info, "filenames", ()):
            if not PLAIN.fullmatch(shard):
                raise UserError(f"--data-dir {config.data_dir}: has a shard called {shard!r:.80}; rename it")
