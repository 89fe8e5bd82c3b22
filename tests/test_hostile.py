"""Recipes, run folders, weights, networks and names that mean harm run nothing, write nothing, and get one line.

Each payload would write a file or fill the memory; what surrounds the run is listed before and after. That the
payloads work where they are trusted is tested first.
"""

import json
import os
import pickle
import resource
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers.messages import mentions
from helpers.runs import DIGITS, TINY_STUDENT, run
from isometry.cli.main import main

TRAIN = ["train", *TINY_STUDENT, "--epochs", "1"]
MEMORY = 4 << 30
"""Bytes that are enough for what is refused, and that what is let through can't exceed."""


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, sprung: Path) -> None:
        self.words = ["touch", str(sprung)]

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.check_call, (self.words,)


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A folder with a run's place in it, and things around that place to be left alone."""
    (tmp_path / "bystander").mkdir()
    (tmp_path / "bystander" / "letter.txt").write_text("dear")
    (tmp_path / "place").mkdir()
    return tmp_path


def seen(folder: Path) -> dict[str, bytes | None]:
    """All that a folder holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "said" not in path.name
    }


def refused(ground: Path, *words: str, why: str) -> None:
    """The command, in a process of its own, leaves 2, says one line, and changes nothing anywhere on the ground."""
    before = seen(ground)
    little_memory = partial(resource.setrlimit, resource.RLIMIT_DATA, (MEMORY, MEMORY))
    ended = run(*words, said=ground / "said", prepare=little_memory)
    check_refused(ended.code, ended.err, why)
    assert seen(ground) == before


@pytest.fixture
def refused_here(ground: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """The same in this process, for what would do it no harm if it were let through."""

    def refused_here(*words: str, why: str) -> None:
        before = seen(ground)
        code = main(words)
        check_refused(code, capsys.readouterr().err, why)
        assert seen(ground) == before

    return refused_here


def check_refused(code: int, err: str, why: str) -> None:
    assert code == 2, err
    (line,) = err.splitlines()
    assert line.startswith("isometry: ")
    assert mentions(line, why)
    assert line.isprintable()
    assert len(line) < 1000


def out(ground: Path) -> list[str]:
    return ["--out", str(ground / "place" / "run")]


# --- recipes
# ------------------------------------------------------------------------------------------------------


def touching(sprung: Path) -> str:
    return f"!!python/object/apply:os.system ['touch {sprung}']"


def laughs(levels: int = 9) -> str:
    """Ten to the power of ``levels`` values in a few hundred characters."""
    lines = ["&a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"&a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return f"[{', '.join(lines)}]"


def merges() -> str:
    """The same as keys, for a mapping to take over."""
    return laughs().replace("[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", "{a: 1}")


def test_the_traps_spring_where_they_are_trusted(tmp_path: Path):
    yaml.load(f"epochs: {touching(tmp_path / 'by-yaml')}", Loader=yaml.UnsafeLoader)
    assert (tmp_path / "by-yaml").exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "by-pickle")))
    assert (tmp_path / "by-pickle").exists()
    torch.save({"model": Trap(tmp_path / "by-torch")}, tmp_path / "w.pt")
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert (tmp_path / "by-torch").exists()
    (bomb,) = yaml.safe_load(laughs(1))
    assert bomb == [1] * 10


HARMFUL: dict[str, tuple[Callable[[Path], str], str]] = {
    "object": (lambda sprung: f"epochs: {touching(sprung)}", "python/object"),
    "object in an unknown key": (lambda sprung: f"epochz: {touching(sprung)}", "python/object"),
    "object inside text": (lambda sprung: f'model_kwargs: "{touching(sprung)}"', "--model-kwargs"),
    "laughs": (lambda _: f"model_kwargs: {{x: {laughs()}}}", "10,000"),
    "laughs as a merge": (lambda _: f"<<: {merges()}", "10,000"),
    "laughs inside text": (lambda _: f'seed: "{laughs()}"', "10,000"),
    "laughs inside text in a list": (lambda _: f"grow: {{depth: ['{laughs()}']}}", "10,000"),
    "an anchor in itself": (lambda _: "model_kwargs: &a {x: *a}", "10,000"),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_a_recipe_runs_and_writes_nothing(ground: Path, kind: str):
    write, why = HARMFUL[kind]
    recipe = ground / "recipe.yaml"
    recipe.write_text(write(ground / "sprung"))
    refused(ground, "train", "--config", str(recipe), *out(ground), why=why)


WRONG: dict[str, tuple[str, str]] = {
    "module": ("epochs: !!python/module:antigravity", "python/module"),
    "deep": (f"epochs: {'[' * 5000}", "recipe.yaml"),
    "long": (f"epochs: '{'1' * 300_000}'", "longer"),
    "a number of many digits": (f"seed: {'9' * 5000}", "recipe.yaml"),
    "no such day": ("seed: 2024-13-45", "recipe.yaml"),
    "a tag that does not fit": ("seed: !!timestamp soon", "recipe.yaml"),
    "a tag that does not fit, in text": ("seed: '!!timestamp soon'", "recipe.yaml"),
    "NUL in a path": ('out: "run\\0"', "control"),
    "NUL in a name": ('model: "vit_tiny\\0"', "control"),
    "an order to the terminal": ('model: "\\e[2J"', "--model \\x1b[2J"),
    "a list for a number": ("epochs: [1]", "--epochs"),
    "a mapping for text": ("model: {a: b}", "--model"),
    "text for a group": ("grow: deep", "grow"),
    "no mapping": ("- epochs", "recipe.yaml"),
    "a model elsewhere": ("model: ../../evil", "--model ../../evil"),
    "a loss elsewhere": ("model: vit_tiny_patch16_224\nlosses: {../../evil: 1}", "losses.../../evil"),
    "a data set elsewhere": ("model: vit_tiny_patch16_224\ndataset: torch/../../evil", "--dataset"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_recipe_of_wrong_values(ground: Path, refused_here: Callable[..., None], kind: str):
    text, why = WRONG[kind]
    recipe = ground / "recipe.yaml"
    recipe.write_text(text)
    refused_here("check", "--config", str(recipe), why=why)


def test_anchors_and_merges_that_people_use_are_read(ground: Path, refused_here: Callable[..., None]):
    recipe = ground / "recipe.yaml"
    recipe.write_text(
        "model_kwargs: &both {depth: 1}\nteacher_kwargs:\n  <<: *both\n  num_heads: 2\nepochs: x\n"
    )
    refused_here("train", "--config", str(recipe), *out(ground), why="--epochs x")


NAMES = [
    "../../evil",
    "/tmp/evil",
    "a/b",
    "..",
    ".",
    "",
    " ",
    "a\\b",
    ".hidden",
    "x" * 300,
    "a\u202eb",
    1,
    None,
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_variant_is_a_folder_inside_out_and_nowhere_else(
    ground: Path, refused_here: Callable[..., None], name: Any
):
    refused_here(*comparison(ground, {"variants": {name: {"epochs": 1}}}), why="variant")


@pytest.mark.parametrize("name", ["teacher", "plan.yaml", "comparison.csv", "geometry.png"])
def test_a_variant_takes_no_name_that_a_comparison_has_itself(
    ground: Path, refused_here: Callable[..., None], name: str
):
    words = comparison(ground, {"variants": {name: {"epochs": 1}}})
    refused_here(*words, why=name)


def comparison(ground: Path, change: dict[str, Any]) -> list[str]:
    """The command line of a comparison whose recipe is changed."""
    os.mkfifo(ground / "pipe")
    (ground / "base.yaml").write_text("dataset: digits\nmodel: vit_tiny_patch16_224\n")
    recipe = ground / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"base": "base.yaml", "variants": {"a": {"epochs": 1}}, **change}))
    return ["compare", "--config", str(recipe), *out(ground)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base": "/dev/zero"}, "not a regular file"),
        ({"base": "pipe"}, "not a regular file"),
        ({"base": "../../../../../../../../etc/passwd"}, "passwd"),
        ({"variants": {"a": ["b"]}}, "--variants"),
        ({"variants": {"a": {"out": "../../evil"}}}, "variants.a: out"),
        ({"variants": {"a": {"epochs": "x"}}}, "--epochs"),
        ({"overrides": {"out": "../../evil"}}, "--overrides: out"),
        ({"overrides": {"epochs": "x"}}, "--epochs"),
    ],
)
def test_a_comparison_of_wrong_values(
    ground: Path, refused_here: Callable[..., None], change: dict[str, Any], why: str
):
    refused_here(*comparison(ground, change), why=why)


# --- the folder of a run
# ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("finished")
    ended = run(*TRAIN, "--out", str(folder / "run"), said=folder / "said")
    assert ended.code == 0, ended.err
    return folder / "run"


CONFIGS: dict[str, tuple[Callable[[str, Path], str], str]] = {
    "object": (lambda _, sprung: f"epochs: {touching(sprung)}", "python/object"),
    "laughs": (lambda _, __: f"epochs: {laughs()}", "10,000"),
    "wrong kind": (lambda text, _: text.replace("epochs: 1\n", "epochs: {a: b}\n"), "epochs"),
    "no group": (lambda text, _: text.split("grow:")[0] + "grow: 5\n", "config.yaml"),
    "a key more in a group": (lambda text, _: text.replace("grow:", "grow:\n  evil: 1"), "config.yaml"),
    "empty": (lambda _, __: "", "--student"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_config_of_a_run_that_goes_on(ground: Path, finished: Path, kind: str):
    shutil.copytree(finished, ground / "place" / "run")
    config = ground / "place" / "run" / "config.yaml"
    write, why = CONFIGS[kind]
    text = config.read_text()
    config.write_text(write(text, ground / "sprung"))
    assert config.read_text() != text
    refused(ground, *TRAIN, *out(ground), "--resume", why=why)


# --- weights and networks
# ------------------------------------------------------------------------------------------------------


@pytest.fixture
def network(ground: Path, tiny_teacher: Path) -> Path:
    """A saved network that can be spoilt."""
    return Path(shutil.copytree(tiny_teacher, ground / "network"))


def write_trap(path: Path, sprung: Path, write: str) -> None:
    if write == "torch":
        torch.save({"state_dict": {"w": torch.ones(1)}, "args": Trap(sprung)}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Trap(sprung)}))


@pytest.mark.parametrize(
    ("name", "write"),
    [("w.pt", "torch"), ("w.bin", "pickle"), ("w.safetensors", "torch"), ("w.npz", "pickle")],
)
def test_a_pickle_as_weights(ground: Path, name: str, write: str):
    path = ground / name
    write_trap(path, ground / "sprung", write)
    given = ["--initial-checkpoint", str(path)]
    refused(ground, *TRAIN, *given, *out(ground), why=f"--initial-checkpoint {path}")
    taught = ["distill", *TINY_STUDENT, "--teacher", "vit_tiny_patch16_224", "--teacher-weights", str(path)]
    refused(ground, *taught, *out(ground), why=f"--teacher-weights {path}")


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("pytorch_model.bin", "--teacher"),
        ("model.bin", "--model"),
        ("model.pth", "--teacher"),
        ("model.safetensors", "--model"),
    ],
)
def test_a_pickle_in_the_folder_of_a_network(ground: Path, network: Path, name: str, option: str):
    (network / "model.safetensors").unlink()
    write_trap(network / name, ground / "sprung", "torch")
    words = {"--teacher": ["distill", *TINY_STUDENT], "--model": ["train", *DIGITS]}[option]
    refused(ground, *words, option, f"local-dir:{network}", *out(ground), why="pickle")


def test_a_pickle_beside_the_weights_is_not_opened(ground: Path, network: Path):
    write_trap(network / "pytorch_model.bin", ground / "sprung", "torch")
    words = ["distill", *TINY_STUDENT, "--teacher", f"local-dir:{network}", "--epochs", "1"]
    ended = run(*words, *out(ground), said=ground / "said")
    assert ended.code == 0, ended.err
    assert not (ground / "sprung").exists()


def spoilt(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    *parts, last = place.split(".")
    inner = config
    for part in parts:
        inner = inner[part]
    inner[last] = value
    return config


NETWORKS: list[tuple[str, Any, str]] = [
    ("architecture", "../../evil", "config.json"),
    ("architecture", "/etc/passwd", "config.json"),
    ("architecture", "os.system", "config.json"),
    ("architecture", "\x1b[2J[/red]", "config.json"),
    ("architecture", "x" * 10_000, "config.json"),
    ("architecture", ["vit_tiny_patch16_224"], "config.json"),
    ("architecture", None, "config.json"),
    ("model_args", [], "config.json"),
    ("model_args", {"act_layer": "os.system"}, "local-dir:"),
    ("model_args", {"block_fn": "os.system"}, "local-dir:"),
    ("model_args", {"model_name": "../../evil"}, "model_name"),
    ("model_args.embed_dim", 10**9, "local-dir:"),
    ("model_args.depth", "x", "local-dir:"),
    ("pretrained_cfg", "x", "config.json"),
    ("pretrained_cfg.mean", "x", "mean … 'x'"),
    ("pretrained_cfg.std", [0], "std … [0]"),
    ("pretrained_cfg.crop_pct", 1e-9, "crop_pct … 1e-09"),
    ("pretrained_cfg.interpolation", "../x", "interpolation … '../x'"),
]


@pytest.mark.parametrize(("place", "value", "why"), NETWORKS)
def test_a_network_that_can_not_be(
    ground: Path, network: Path, refused_here: Callable[..., None], place: str, value: Any, why: str
):
    config = network / "config.json"
    config.write_text(json.dumps(spoilt(json.loads(config.read_text()), place, value)))
    refused_here("check", *TINY_STUDENT, "--teacher", f"local-dir:{network}", why=why)


@pytest.mark.parametrize("text", ["", "null", "[" * 100_000, "9" * 5000, '{"architecture": NaN}', "\x00"])
def test_a_config_of_a_network_that_is_none(network: Path, refused_here: Callable[..., None], text: str):
    (network / "config.json").write_text(text)
    refused_here("check", *DIGITS, "--model", f"local-dir:{network}", why="config.json")


def test_a_network_fetches_its_weights_from_nowhere_else(ground: Path, network: Path):
    write_trap(ground / "evil.bin", ground / "sprung", "torch")
    config = network / "config.json"
    told = spoilt(json.loads(config.read_text()), "pretrained_cfg.custom_load", True)
    for key in ("url", "file", "hf_hub_id", "hf_hub_filename"):
        spoilt(told, f"pretrained_cfg.{key}", f"file://{ground / 'evil.bin'}")
    config.write_text(json.dumps(told))
    words = ["train", *DIGITS, "--model", f"local-dir:{network}"]
    ended = run(*words, "--epochs", "1", *out(ground), said=ground / "said")
    assert ended.code == 0, ended.err
    assert not (ground / "sprung").exists()
    names = load_file(network / "model.safetensors").keys()
    assert load_file(ground / "place" / "run" / "student" / "model.safetensors").keys() == names


# --- names of classes and files
# ------------------------------------------------------------------------------------------------------

CLASSES = [
    b"<script>alert(1)<",
    b"[red]x[",
    b"[",
    b"$x^2$",
    b"\x1b[2J",
    b"caf\xe9",
    b"..a",
    b"a\nb",
    b'"><img src=x>',
]


def test_names_of_classes_and_files_are_shown_and_not_obeyed(
    ground: Path, write_picture: Callable[[Path], None]
):
    images = ground / "images"
    for name in CLASSES:
        folder = images / os.fsdecode(name)
        for number in range(3):
            write_picture(folder / f"{number}.png")
        for bad in (b"<u>\xff\x1b[2J[red].png", b"[].png"):
            (folder / os.fsdecode(bad)).write_bytes(b"no image")
    before = seen(ground)
    shape = ["patch_size=8", "embed_dim=16", "depth=1", "num_heads=1"]
    words = ["train", "--model", "vit_tiny_patch16_224", "--model-kwargs", *shape, "--data-dir", str(images)]
    words += ["--img-size", "16", "--batch-size", "8", "--workers", "0", "--epochs", "1", "--device", "cpu"]
    refused(ground, *words, *out(ground), why="image")
    place = str(ground / "place" / "[red]run[")
    ended = run(*words, "--skip-bad-images", "--out", place, said=ground / "said", report=True)
    assert (ended.code, ended.err) == (0, "")
    assert f"Folder   {place}" in ended.out
    assert "unreadable images" in ended.out
    assert "\x1b" not in ended.out
    page = (Path(place) / "report.html").read_text(encoding="utf-8")
    for harm in ("<script>alert", "<u>", "<img src=x", "\x1b"):
        assert harm not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    named = json.loads((Path(place) / "student" / "config.json").read_text())["label_names"]
    # A folder that begins with a dot is no class, and is named too.
    assert sorted(named) == sorted(os.fsdecode(name) for name in CLASSES if not name.startswith(b"."))
    assert "so they are no classes): ..a" in ended.out
    after = seen(ground)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("place/[red]run[") for name in after.keys() - before.keys())


def test_brackets_in_a_path_are_shown_and_not_obeyed(
    ground: Path, network: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "1000")
    place = ground / "[" / "red]"
    shutil.copytree(network, place)
    assert main(["check", *DIGITS, "--model", f"local-dir:{place}"]) == 0
    assert f"local-dir:{place} " in capsys.readouterr().out
    assert main(["check", "--model", f"local-dir:{place}/[/red]"]) == 2
    assert mentions(capsys.readouterr().err, "[/red] … config.json")


@pytest.fixture
def write_picture() -> Callable[[Path], None]:
    """Writes a small image of random pixels."""
    from PIL import Image

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), 50).convert("RGB").save(path)

    return write
