"""Any options, folders and pictures: exit code 0 or 2, one line of error, no traceback, and nothing touched but --out.

The suite tries a fixed sample of them. ``make fuzz`` tries other ones, for longer.
"""

import os
import pickle
import resource
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.image_files import truncate, write_image
from helpers.runs import Ended, run
from isometry.config import RunConfig

TRIES = os.environ.get("FUZZ", "")
FUZZ = settings(
    max_examples=int(TRIES or 12),
    derandomize=not TRIES,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
MEMORY = 6 << 30
"""Bytes of address space: what asks for more is no answer within reason."""
TINY = [
    *(
        "--model",
        "vit_tiny_patch16_224",
        "--model-kwargs",
        "patch_size=4",
        "embed_dim=24",
        "depth=1",
        "num_heads=2",
    ),
    *("--img-size", "16", "--epochs", "1", "--batch-size", "4", "--workers", "0", "--device", "cpu"),
]

# --- pictures and folders


def _saved(mode: str, **options: Any) -> Callable[[Path], None]:
    """A writer of pictures of a mode of Pillow's, in the format of ``options``."""

    def write(path: Path) -> None:
        pixels = np.random.RandomState(len(path.name)).randint(0, 256, (20, 24, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).convert(mode if mode not in ("I;16", "F") else "L")
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 16)
        if mode == "F":
            values = np.asarray(image).astype(np.float32) / 255
            values[0, 0] = np.nan
            image = Image.fromarray(values)
        image.save(path, **options)

    return write


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(write_image(path.with_suffix(".bmp"))).save(path, "JPEG", exif=exif)
    path.with_suffix(".bmp").unlink()


def _huge(path: Path) -> None:
    """A header of 60,000 × 60,000 pixels."""
    write_image(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    path.write_bytes(bytes(data))


PICTURES: dict[str, Callable[[Path], object]] = {
    "good.png": write_image,
    "photograph.jpg": write_image,
    "cut.png": lambda path: truncate(write_image(path)),
    "cut.jpg": lambda path: truncate(write_image(path)),
    "empty.png": Path.touch,
    "text.jpg": lambda path: path.write_text("no image"),
    "vector.png": lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
    "alpha.png": _saved("RGBA"),
    "palette.gif": _saved("P"),
    "bit.bmp": _saved("1"),
    "cmyk.jpg": _saved("CMYK"),
    "deep.png": _saved("I;16"),
    "float.tif": _saved("F"),
    "web.webp": _saved("RGB"),
    "turned.jpg": _turned,
    "huge.png": _huge,
    "pipe.png": os.mkfifo,
    "folder.png": Path.mkdir,
    "nowhere.png": lambda path: path.symlink_to("gone"),
    "itself.png": lambda path: path.symlink_to(path.name),
    "device.png": lambda path: path.symlink_to("/dev/zero"),
    "raw.heic": lambda path: path.write_bytes(b"\0" * 64),
    "Thumbs.db": Path.touch,
}
FOLDERS = (
    "train",
    "val",
    "test",
    "cat",
    "dog",
    "dog/puppy",
    "ü",
    ".git",
    "__MACOSX",
    "[/red]",
    "\x1b[31mred",
    "=1+1",
    "a\nb",
    "-b",
)
FOLDERS_OF_PICTURES = st.dictionaries(
    st.tuples(st.sampled_from(["", "train/", "val/"]), st.sampled_from(["", *FOLDERS])).map("".join),
    st.lists(st.sampled_from(sorted(PICTURES)), max_size=6, unique=True),
    min_size=1,
    max_size=5,
)
GOOD = {"cat": ["good.png", "photograph.jpg", "web.webp"], "dog": ["good.png", "photograph.jpg", "web.webp"]}


def write_pictures(root: Path, folders: dict[str, list[str]]) -> None:
    """Folders with the pictures of these names."""
    for folder, names in folders.items():
        place = root / folder
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not os.path.lexists(place / name):
                PICTURES[name](place / name)


# --- options


def option_names() -> set[str]:
    """Every option of a run, as on the command line."""
    found = set()
    for name, hint in get_type_hints(RunConfig).items():
        parts = [f".{part}" for part in get_type_hints(hint)] if is_dataclass(hint) else [""]
        found |= {f"--{name}{part}".replace("_", "-") for part in parts}
    return found


NUMBERS = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "0.5",
    "1e-30",
    "1e30",
    "inf",
    "nan",
    "-0",
    "1e400",
    "99999999999999999999",
]
TEXTS = [
    "",
    " ",
    "none",
    "x" * 300,
    "[/red]",
    "\x1b[2J",
    "../..",
    "~",
    "rand-m9-mstd0.5-inc1",
    "a=b",
    "{",
    "true",
    "-",
    "pipe:true",
    "hf-hub:a/b",
    "ü",
    "0,1",
    "[1,2]",
]
LEFT_ALONE = {
    "--out",
    "--device",
    "--data-dir",
    "--dataset",
    "--resume",
    "--dataset-download",
    "--log",
    "--compile",
    "--workers",
}
"""Those that say where a run reads and writes, or that only take time: processes, compilation."""
SLOW_TO_TRAIN = {"--epochs", "--model", "--model-kwargs", "--img-size", "--pretrained", "--teacher"}
"""Those that a run of a moment can't have at any value."""


def option(among: list[str]) -> st.SearchStrategy[list[str]]:
    """An option with one or two values, which may be of another kind than its own."""
    values = st.sampled_from(NUMBERS + TEXTS)
    return st.tuples(st.sampled_from(among), st.lists(values, min_size=1, max_size=2)).map(
        lambda drawn: [drawn[0], *drawn[1]]
    )


def options(without: set[str]) -> st.SearchStrategy[list[str]]:
    """Up to three options, as words."""
    drawn = st.lists(option(sorted(option_names() - LEFT_ALONE - without)), max_size=3)
    return drawn.map(lambda found: list(chain.from_iterable(found)))


# --- the property


@contextmanager
def ground() -> Iterator[Path]:
    """A folder to work in, with something beside it that nobody may touch."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        (place / "bystander").mkdir()
        (place / "bystander" / "letter.txt").write_text("dear")
        yield place


def seen(folder: Path) -> dict[str, Any]:
    """All that a folder holds, but for the run's own and what it said."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith(("out", "said")):
            status = path.lstat()
            found[name] = (status.st_mode, status.st_size if not path.is_dir() else 0, status.st_mtime_ns)
    return found


def _prepare(place: str) -> None:
    os.chdir(place)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def check_answer(place: Path, *words: str) -> Ended:
    """Gives the command, and checks the promises."""
    before = seen(place)
    ended = run(*words, said=place / "said", prepare=partial(_prepare, str(place)))
    told = f"{words}\n{ended.out[-2000:]}\n{ended.err[-3000:]}"
    assert ended.code in (0, 2), told
    assert "Traceback" not in ended.out + ended.err, told
    lines = ended.err.splitlines()
    if ended.code == 2:
        assert len(lines) == 1, told
        assert lines[0].startswith("isometry: "), told
        assert not any(ord(letter) < 32 for letter in lines[0]), told
    assert seen(place) == before, told
    return ended


@pytest.mark.slow
@FUZZ
@given(options(set()))
def test_any_options_are_checked_in_one_line(given_options: list[str]) -> None:
    with ground() as place:
        write_pictures(place / "pictures", GOOD)
        check_answer(place, "check", *TINY, "--data-dir", "pictures", *given_options)


@pytest.mark.slow
@FUZZ
@given(FOLDERS_OF_PICTURES, st.booleans())
def test_any_folder_trains_or_is_refused_in_one_line(folders: dict[str, list[str]], skip: bool) -> None:
    with ground() as place:
        write_pictures(place / "pictures", folders)
        words = [*TINY, "--data-dir", "pictures", "--out", "out", *["--skip-bad-images"] * skip]
        check_answer(place, "train", *words)


@pytest.mark.slow
@FUZZ
@given(options(SLOW_TO_TRAIN))
def test_any_options_train_or_are_refused_in_one_line(given_options: list[str]) -> None:
    with ground() as place:
        write_pictures(place / "pictures", GOOD)
        check_answer(place, "train", *TINY, "--data-dir", "pictures", "--out", "out", *given_options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    place = tmp_path_factory.mktemp("finished")
    write_pictures(place / "pictures", GOOD)
    words = ["train", *TINY, "--data-dir", str(place / "pictures"), "--out", str(place / "out")]
    assert run(*words, said=place / "said").code == 0
    return place


def files_of(run_folder: Path) -> list[str]:
    """The files of a run, by their paths in its folder."""
    return sorted(str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file())


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """A file's content cut off, with another byte, empty, or with something put in or repeated."""
    place = draw(st.integers(0, max(0, len(content) - 1)))
    before, after = content[:place], content[place:]
    inserted = draw(st.sampled_from([b"\0\xff[/red]\x1b[2J", b"\n", b",", b": ", b"~", b'"', after[:20]]))
    byte = bytes([draw(st.integers(0, 255))])
    return draw(st.sampled_from([before, before + byte + after[1:], b"", before + inserted + after]))


GIVEN = {
    "list.csv": (
        b"path,label,split\npictures/cat/good.png,cat,train\npictures/dog/good.png,dog,train\n"
        b"pictures/cat/web.webp,cat,val\npictures/dog/web.webp,dog,val\n",
        ["--data-dir", "list.csv"],
    ),
    "map.txt": (b"cat\ndog\nbird\n", ["--data-dir", "pictures", "--class-map", "map.txt"]),
    "map.pkl": (pickle.dumps({"cat": 0, "dog": 1}), ["--data-dir", "pictures", "--class-map", "map.pkl"]),
    "recipe.yaml": (
        b"data_dir: pictures\naa: rand-m9-mstd0.5-inc1\nlr: 0.1\nlosses: {ce: 1}\nscale: [0.5, 1.0]\n"
        b"model_kwargs: {patch_size: 4, embed_dim: 24, depth: 1, num_heads: 2}\nseed: 3\n",
        ["--config", "recipe.yaml"],
    ),
}
"""Files that options name: their content, and the options."""


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_a_damaged_list_class_map_or_recipe_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(GIVEN)))
    content, words = GIVEN[name]
    with ground() as place:
        write_pictures(place / "pictures", GOOD)
        (place / name).write_bytes(data.draw(damage(content)))
        check_answer(place, "check", *TINY, *words)


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_a_damaged_run_is_read_or_refused_in_one_line(finished: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(files_of(finished / "out")))
    damaged = data.draw(damage((finished / "out" / name).read_bytes()))
    command = data.draw(st.sampled_from(["evaluate", "report", "export", "--resume"]))
    with ground() as folder:
        shutil.copytree(finished / "out", folder / "out")
        (folder / "out" / name).write_bytes(damaged)
        words = [command, "out"]
        if command == "--resume":
            words = ["train", *TINY, "--data-dir", str(finished / "pictures"), "--out", "out", "--resume"]
        check_answer(folder, *words)
