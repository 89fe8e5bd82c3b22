"""Runs that resume after their classes or images were changed: refused, or said."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from signal import SIGTERM

import pytest
import yaml

from helpers.image_files import write_classes, write_image
from helpers.messages import mentions
from helpers.runs import Ended, call_at, free_port, run, run_ranks, send_self, signalled_at_step
from isometry.cli.main import main
from isometry.data.inventory import OTHER_DATES

CLASSES = {"ant": 10, "bee": 10, "cat": 10}
TINY = ["patch_size=4", "embed_dim=16", "depth=1", "num_heads=2", "mlp_ratio=2"]
WORDS = [
    *("train", "--model", "vit_tiny_patch16_224", "--model-kwargs", *TINY, "--img-size", "8"),
    *("--batch-size", "6", "--workers", "0", "--warmup-epochs", "0", "--device", "cpu", "--epochs", "2"),
]


def begin(ground: Path, prepare: Callable[[], None]) -> list[str]:
    """Stops a run of four steps an epoch on images in ``ground/photos``; the words of the command."""
    for part in ("train", "val"):
        write_classes(ground / "photos" / part, CLASSES if part == "train" else dict.fromkeys(CLASSES, 2))
    words = [*WORDS, "--data-dir", str(ground / "photos"), "--out", str(ground / "run")]
    ended = run(*words, said=ground / "said", prepare=prepare)
    assert (ended.code, "go on with --resume" in ended.err) == (0, True), ended.err
    return words


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped inside its second epoch, with its images."""
    ground = tmp_path_factory.mktemp("inside")
    begin(ground, signalled_at_step(7, SIGTERM))
    return ground


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped after its first epoch."""
    ground = tmp_path_factory.mktemp("between")
    scored = "isometry.training.checkpoint.run_state:LoopState.keep_best"
    begin(ground, partial(call_at, scored, 1, partial(send_self, SIGTERM)))
    return ground


def copied(stopped: Path, ground: Path) -> Path:
    """The images of a stopped run, free to be changed."""
    ground.mkdir(exist_ok=True)
    shutil.copytree(stopped / "run", ground / "run")
    shutil.copytree(stopped / "photos", ground / "photos")
    config = ground / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(stopped), str(ground)))
    return ground / "photos"


def resume(ground: Path, *words: str) -> Ended:
    where = ["--data-dir", str(ground / "photos"), "--out", str(ground / "run"), "--resume"]
    return run(*WORDS, *where, *words, said=ground / "said", report=True)


def rename_a_class(photos: Path) -> None:
    for part in ("train", "val"):
        (photos / part / "ant").rename(photos / part / "dog")


def add_a_class(photos: Path) -> None:
    for part in ("train", "val"):
        write_classes(photos / part, {"bat": 4})


def checked(ground: Path, *words: str) -> Ended:
    where = ["--data-dir", str(ground / "photos"), "--out", str(ground / "run"), "--resume"]
    return run("check", *WORDS[1:], *where, *words, said=ground / "checked")


def remove_a_class(photos: Path) -> None:
    for part in ("train", "val"):
        shutil.rmtree(photos / part / "cat")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rename_a_class, "they lack 'ant' and have the new 'dog'"),
        (add_a_class, "they have the new 'bat'"),
        (remove_a_class, "they lack 'cat'"),
    ],
)
@pytest.mark.parametrize("words", [[], ["--data-changed"]])
def test_other_classes_are_refused_by_name(
    between: Path, tmp_path: Path, change: Callable[[Path], None], said: str, words: list[str]
):
    change(copied(between, tmp_path))
    before = (tmp_path / "run" / "data.json").read_bytes()
    ended = resume(tmp_path, *words)
    assert ended.code == 2
    asked = checked(tmp_path, *words)
    assert (asked.code, asked.err) == (2, ended.err)
    assert mentions(ended.err, f"--resume: the classes are not those of the run … {said}; put them back")
    assert len(ended.err.splitlines()) == 1
    assert (tmp_path / "run" / "data.json").read_bytes() == before
    assert not (tmp_path / "run" / "student").exists()


def halve_a_class(photos: Path) -> None:
    for path in sorted((photos / "train" / "bee").iterdir())[::2]:
        path.unlink()


def replace_a_file(photos: Path) -> None:
    path = photos / "train" / "bee" / "3.png"
    shutil.copyfile(photos / "train" / "cat" / "3.png", path)
    with path.open("ab") as file:
        file.write(b"x")


CHANGES = [
    (halve_a_class, "training 30 images, 25 now (train/bee/ 10, 5 now)"),
    (replace_a_file, "training 30 images, 30 now (train/bee/ 10, but of other names, sizes or labels)"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_other_files_are_refused_inside_an_epoch_unless_the_user_says_so(
    inside: Path, tmp_path: Path, change: Callable[[Path], None], said: str
):
    change(copied(inside, tmp_path))
    ended = resume(tmp_path)
    assert ended.code == 2
    assert mentions(ended.err, f"not those that the epoch was begun with: {said}; … --data-changed")
    asked = checked(tmp_path)
    assert (asked.code, asked.err) == (2, ended.err)
    assert "This run can start" in checked(tmp_path, "--data-changed").out
    assert len(ended.err.splitlines()) == 1
    ended = resume(tmp_path, "--data-changed")
    assert ended.code == 0, ended.err
    note = f"resumed inside an epoch with other images: {said}"
    assert note in " ".join(ended.out.split())
    assert note in json.loads((tmp_path / "run" / "report.json").read_text())["report"]["notes"]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_other_files_are_said_between_epochs(
    between: Path, tmp_path: Path, change: Callable[[Path], None], said: str
):
    change(copied(between, tmp_path))
    asked = checked(tmp_path)
    assert asked.code == 0, asked.err
    assert f"resumed with other images: {said}" in " ".join(asked.out.split())
    other = checked(tmp_path, "--lr", "0.1")
    assert other.code == 2
    assert "--lr was" in other.err
    ended = resume(tmp_path)
    assert ended.code == 0, ended.err
    assert f"resumed with other images: {said}" in " ".join(ended.out.split())
    assert "chosen anew" not in ended.out


def test_scores_of_other_validation_images_are_not_compared(between: Path, tmp_path: Path):
    photos = copied(between, tmp_path)
    saved = json.loads((tmp_path / "run" / "last" / "checkpoint.json").read_text())
    assert saved["loop"]["best_epoch"] == 1
    write_image(photos / "val" / "ant" / "new.png", seed=7)
    ended = resume(tmp_path)
    assert ended.code == 0, ended.err
    assert "validation 6 images, 7 now (val/ant/ 2, 3 now); the best epoch is chosen anew" in " ".join(
        ended.out.split()
    )
    saved = json.loads((tmp_path / "run" / "last" / "checkpoint.json").read_text())
    assert saved["loop"]["best_epoch"] == 2


def test_the_same_files_elsewhere_in_time_are_no_change(inside: Path, tmp_path: Path):
    """Copied to the disk of another machine, with other times of change, which are said."""
    copied(inside, tmp_path)
    for path in (tmp_path / "photos").rglob("*.png"):
        path.touch()
    ended = resume(tmp_path)
    assert ended.code == 0, ended.err
    said = " ".join(ended.out.split())
    assert "other images" not in said
    assert (
        f"resumed with files of the {OTHER_DATES}: training (train/ant/ 10, train/bee/ 10, train/cat/ 10)"
        in said
    )


def test_a_run_of_an_older_version_goes_on_with_a_note(inside: Path, tmp_path: Path):
    copied(inside, tmp_path)
    (tmp_path / "run" / "data.json").unlink()
    ended = resume(tmp_path)
    assert ended.code == 0, ended.err
    assert "data.json: missing, because an older version began the run" in " ".join(ended.out.split())
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    assert record["inventory"]["classes"] == list(CLASSES)


@pytest.mark.parametrize("text", ["{", "[]", '{"inventory": 3, "notes": []}'])
def test_a_damaged_record_is_said_in_one_line(inside: Path, tmp_path: Path, text: str):
    copied(inside, tmp_path)
    (tmp_path / "run" / "data.json").write_text(text)
    ended = resume(tmp_path)
    assert ended.code == 2
    assert mentions(ended.err, "data.json: can't be read … put back a copy, or delete it")
    assert len(ended.err.splitlines()) == 1


@pytest.mark.slow
def test_several_processes_refuse_alike(inside: Path, tmp_path: Path):
    halve_a_class(copied(inside, tmp_path))
    where = ["--data-dir", str(tmp_path / "photos"), "--out", str(tmp_path / "run"), "--resume"]
    words = ["--global-batch-size", "6", *where]
    for ended in run_ranks(*WORDS, *words, folder=tmp_path, port=free_port()):
        assert ended.code == 2
        assert "not those that the epoch was begun with" in ended.err


@pytest.mark.parametrize(("change", "said"), [
    (rename_a_class, "the network's class 0 is 'ant' and the data's is 'bee'"),
    (remove_a_class, "the network has 3 classes and the data 2, which lack 'cat'"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["evaluate", "bench", "export"])
def test_a_finished_run_is_not_judged_on_other_classes(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    said: str,
    command: str,
):
    change(copied(finished, tmp_path))
    words = ["--to", "onnx"] if command == "export" else []
    assert main([command, str(tmp_path / "run"), *words]) == 2
    assert f"{command} {tmp_path / 'run'}: {said}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(between: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, trained to its end."""
    ground = tmp_path_factory.mktemp("finished")
    copied(between, ground)
    ended = resume(ground)
    assert ended.code == 0, ended.err
    return ground


@pytest.mark.slow
def test_processes_with_other_images_are_told(inside: Path, tmp_path: Path):
    copied(inside, tmp_path / "one")
    halve_a_class(copied(inside, tmp_path / "two"))
    # On two machines the same path leads to two disks.
    prepare = [partial(here, tmp_path / name) for name in ("one", "two")]
    words = ["--global-batch-size", "6", "--data-dir", "photos", "--out", str(tmp_path / "new")]
    for ended in run_ranks(*WORDS, *words, folder=tmp_path, port=free_port(), prepare=prepare):
        assert ended.code == 2
        assert "process 1 of 2 has other images or classes than process 0" in ended.err


def here(folder: Path) -> None:
    os.chdir(folder)


# --- the place of the data


def test_a_run_is_judged_on_its_own_images_from_any_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Begun with a relative path, with other images at that path where one stands now."""
    (tmp_path / "mine").mkdir()
    copied(finished, tmp_path / "mine")
    write_classes(tmp_path / "elsewhere" / "photos" / "val", dict.fromkeys(CLASSES, 5))
    write_classes(tmp_path / "elsewhere" / "photos" / "train", CLASSES)
    words = [*WORDS, "--epochs", "1", "--data-dir", "photos", "--out", str(tmp_path / "run")]
    ended = run(*words, said=tmp_path / "said", prepare=partial(here, tmp_path / "mine"))
    assert ended.code == 0, ended.err
    assert f"data_dir: {tmp_path / 'mine' / 'photos'}\n" in (tmp_path / "run" / "config.yaml").read_text()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "6 validation images" in " ".join(capsys.readouterr().out.split())
    # As an older version saved it.
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(tmp_path / "mine" / "photos"), "photos"))
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"data_dir photos is relative, and taken from the present folder: {Path.cwd() / 'photos'}" in said


@pytest.mark.parametrize("command", ["evaluate", "bench"])
def test_images_that_are_gone_are_said(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
):
    shutil.rmtree(copied(finished, tmp_path))
    assert main([command, str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert f"the run's images are gone ({tmp_path / 'photos'}); give them with --data-dir" in said
    assert said.count("\n") == 1


def test_a_run_whose_images_were_moved_goes_on_with_a_note(inside: Path, tmp_path: Path):
    copied(inside, tmp_path).rename(tmp_path / "moved")
    ended = resume(tmp_path, "--data-dir", str(tmp_path / "moved"))
    assert ended.code == 0, ended.err
    said = " ".join(ended.out.split())
    assert f"--data-dir: {tmp_path / 'photos'} is gone, {tmp_path / 'moved'} is used" in said
    assert "other images" not in said


def test_other_images_at_another_place_are_another_run(inside: Path, tmp_path: Path):
    shutil.copytree(copied(inside, tmp_path), tmp_path / "copy")
    ended = resume(tmp_path, "--data-dir", str(tmp_path / "copy"))
    assert ended.code == 2
    assert mentions(ended.err, "--data-dir was … and is … now")


def test_the_new_place_of_moved_images_is_kept_for_what_reads_the_run_later(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copied(inside, tmp_path).rename(tmp_path / "moved")
    before = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    ended = resume(tmp_path, "--data-dir", str(tmp_path / "moved"), "--skip-bad-images", "--workers", "1")
    assert ended.code == 0, ended.err
    note = (
        f"{tmp_path / 'run' / 'config.yaml'}: written again, with the options of now that may differ: "
        f"--data-dir {tmp_path / 'moved'}, --skip-bad-images True, --workers 1"
    )
    assert note in json.loads((tmp_path / "run" / "report.json").read_text())["report"]["notes"]
    now = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    changed = {"data_dir": str(tmp_path / "moved"), "skip_bad_images": True, "workers": 1}
    assert now == before | changed
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "6 validation images" in " ".join(capsys.readouterr().out.split())
    # The same command again finds the same run.
    again = resume(tmp_path, "--data-dir", str(tmp_path / "moved"), "--skip-bad-images", "--workers", "1")
    assert again.code == 0, again.err
    assert "written again" not in again.out


def test_a_place_that_is_refused_is_not_kept(inside: Path, tmp_path: Path):
    """A disk that is not mounted, and other images of the same classes by mistake."""
    photos = copied(inside, tmp_path)
    shutil.copytree(photos, tmp_path / "other")
    halve_a_class(tmp_path / "other")
    photos.rename(tmp_path / "away")
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    ended = resume(tmp_path, "--data-dir", str(tmp_path / "other"))
    assert ended.code == 2
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    (tmp_path / "away").rename(photos)
    assert resume(tmp_path).code == 0


@pytest.mark.parametrize("command", ["evaluate", "bench", "export"])
def test_a_finished_run_is_judged_on_changed_images_with_a_note(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
):
    photos = copied(finished, tmp_path)
    write_image(photos / "val" / "bee" / "new.png", seed=8)
    options = {
        "export": ["--to", "onnx", "--seconds", "0.01"],
        "bench": ["--seconds", "0.01", "--runtimes", "eager"],
    }
    assert main([command, str(tmp_path / "run"), *options.get(command, [])]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "have changed since it was trained: validation 6 images, 7 now (val/bee/ 2, 3 now)" in said
