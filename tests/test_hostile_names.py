"""One set of hostile names through every output: each is shown as text, and none is obeyed.

Names of classes, files, folders, runs and variants; the console of each command, SVG, Markdown, CSV, ONNX metadata,
TensorBoard. (``tests/test_hostile.py`` has the page.)
"""

import csv
import json
import os
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from helpers.bench_rows import form, network
from helpers.messages import mentions
from helpers.runs import run
from isometry.errors import markdown, markdown_code, printable
from isometry.evaluation.pictures import evaluation_svg
from isometry.report.drawing.charts import shares_chart
from isometry.report.drawing.cost import COSTS, Point, cost_svg
from isometry.report.drawing.gains import comparison_picture
from isometry.report.drawing.latency import latency_picture
from isometry.report.drawing.matrices import maps_picture, matrix_svg
from isometry.report.records.intervals import comparison_row
from isometry.report.records.record import read_record, write_record

NAMES = [
    os.fsdecode(name)
    for name in (
        b"\x1b[2J\x1b]52;c;ZXZpbA==\x07",
        b"[/red]",
        b"[red]x[",
        b"a\nb",
        b"<script>alert(1)<",
        b"\"><img src=x>'&",
        b"=1+1",
        b"caf\xe9",
        "gpj.\u202excod\u200f".encode(),
        b"$x^2$",
        b"a|b`c",
        b"# b",
    )
]
"""Terminal escapes, rich's markup, a line break, HTML, a formula, invalid UTF-8, the other direction of writing,
mathematics, Markdown."""
NETWORK = ["--model", "vit_tiny_patch16_224", "--img-size", "16", "--device", "cpu", "--workers", "0"]
NETWORK += ["--model-kwargs", "patch_size=8", "embed_dim=16", "depth=1", "num_heads=1"]


def check_console(*texts: str) -> None:
    """Every line is what a terminal shows and does not obey."""
    for text in texts:
        assert "Traceback" not in text
        for line in text.splitlines():
            assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")], line


def check_svg(text: str, *names: str) -> None:
    """Well-formed, without elements that names would make, and with the names as text."""
    # On a page, HTML declares the names of SVG.
    declared = "" if "xmlns" in text else ' xmlns:xlink="http://www.w3.org/1999/xlink"'
    root = ElementTree.fromstring(text.replace("<svg", f"<svg{declared}", 1).encode())
    assert not {element.tag.rpartition("}")[2] for element in root.iter()} & {"script", "img"}
    shown = " ".join(" ".join(root.itertext()).split())
    for name in names:
        assert " ".join(printable(name).split()) in shown
    check_console(text)


def check_markdown(text: str) -> None:
    for harm in ("<script", "<img", "\n# b", "\x1b"):
        assert harm not in text
    check_console(text)


def check_csv(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            assert not [cell for cell in row if cell.startswith(("=", "@")) or not cell.isprintable()]


ON_DISK = [name for name in NAMES if "/" not in name]
PLACE = f"[/red]{''.join(ON_DISK)}"
"""A path of two folders with all of them in its names."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ground")


@pytest.fixture(scope="module")
def images(ground: Path) -> Path:
    """A folder whose name, classes and files are hostile; one file of each class is no image."""
    from PIL import Image

    folder = ground / f"images{PLACE}"
    for name in ON_DISK:
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.effect_noise((16, 16), 50).convert("RGB").save(folder / name / f"{number}.png")
        (folder / name / f"{name}.png").write_bytes(b"no image")
    return folder


def said_by(ground: Path, *words: str, report: bool = False) -> str:
    """What a command that succeeds prints."""
    ended = run(*words, said=ground / "said", report=report)
    assert (ended.code, ended.err) == (0, "")
    check_console(ended.out)
    return ended.out


def on(images: Path) -> list[str]:
    return [*NETWORK, "--data-dir", str(images), "--batch-size", "8", "--skip-bad-images"]


@pytest.fixture(scope="module")
def trained(ground: Path, images: Path) -> Path:
    # Of all of them, only what is not UTF-8 can't be a run's folder.
    folder = ground / f"run{PLACE.replace(NAMES[7], '')}"
    words = ["train", *on(images), "--epochs", "1", "--log", "tensorboard", "--out", str(folder)]
    said = said_by(ground, *words, report=True)
    assert f"Folder   {printable(str(folder))}" in said
    return folder


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_folder_that_is_not_utf_8_is_refused_before_training(ground: Path, images: Path, command: str):
    """Safetensors reads nothing from it, nor does TensorBoard write to it."""
    folder = ground / f"new{NAMES[7]}"
    ended = run(command, *on(images), "--epochs", "1", "--out", str(folder), said=ground / "said")
    (line,) = ended.err.splitlines()
    check_console(line)
    assert ended.code == 2
    assert mentions(line, "--out … caf\\udce9 … UTF-8")
    assert not folder.exists()


def test_check(ground: Path, images: Path):
    said = said_by(ground, "check", *on(images), "--model-kwargs.depth", "1")
    assert printable(str(images)) in said


def test_a_refusal(ground: Path, images: Path):
    ended = run("check", *NETWORK, "--data-dir", f"{images}/gone", said=ground / "said")
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    check_console(line)
    # An error is one line, so line breaks in it are spaces.
    assert printable(" ".join(f"{images}/gone".split())) in line


def test_the_folder_of_a_run(trained: Path):
    check_csv(trained / "metrics.csv")
    check_console((trained / "report.html").read_text(encoding="utf-8"))
    named = json.loads((trained / "student" / "config.json").read_text())["label_names"]
    assert sorted(named) == sorted(ON_DISK)


def test_tags_of_tensorboard(trained: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert "train/loss" in tags["scalars"]
    check_console(*tags["scalars"], *tags["images"])


def test_evaluate(ground: Path, trained: Path, images: Path):
    said = said_by(ground, "evaluate", str(trained), "--out", str(ground / "evaluated"))
    for name in ON_DISK:
        assert printable(name) in said
    svg = (ground / "evaluated" / "evaluation.svg").read_text(encoding="utf-8")
    check_svg(svg, *(name for name in ON_DISK if len(printable(name)) <= 16))
    scores = json.loads((ground / "evaluated" / "evaluation.json").read_text())["scores"]
    assert [row["name"] for row in scores["classes"]] == sorted(ON_DISK)


def test_bench(ground: Path, trained: Path):
    words = [
        "--seconds",
        "0.01",
        "--batch-sizes",
        "1",
        "--runtimes",
        "eager",
        "--out",
        str(ground / "benched"),
    ]
    said = said_by(ground, "bench", str(trained), "vit_tiny_patch16_224", *words)
    assert printable(f"local-dir:{trained}")[-20:] in said.replace("\n", "") or "red]" in said
    check_svg((ground / "benched" / "bench.svg").read_text(encoding="utf-8"))


def test_the_card_of_an_export(ground: Path, trained: Path, images: Path):
    out = ground / "card"
    said_by(
        ground,
        "export",
        str(trained),
        "--to",
        "timm",
        "--license",
        NAMES[0],
        "--seconds",
        "0.01",
        "--out",
        str(out),
    )
    card = (out / "README.md").read_text(encoding="utf-8")
    check_markdown(card)
    for name in ON_DISK:
        assert markdown_code(name) in card
    assert markdown(images.name) in card
    assert f"Weights: {markdown(NAMES[0])}." in card


@pytest.mark.slow
def test_metadata_of_onnx(ground: Path, trained: Path):
    onnx = pytest.importorskip("onnx")
    out = ground / "student.onnx"
    said_by(ground, "export", str(trained), "--to", "onnx", "--seconds", "0.01", "--out", str(out))
    properties = {each.key: each.value for each in onnx.load(out).metadata_props}
    check_console(*properties.values())
    assert json.loads(properties["class_names"]) == sorted(ON_DISK)


def test_compare(ground: Path):
    variants = {name: {"epochs": 1} for name in NAMES if name.isprintable() and "/" not in name}
    small = dict(
        dataset="digits", model=NETWORK[1], img_size=8, in_chans=1, epochs=1, device="cpu", workers=0
    )
    small["model_kwargs"] = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 1}
    (ground / "base.yaml").write_text(yaml.safe_dump(small))
    comparison = {"base": "base.yaml", "variants": variants, "seeds": 1, "baseline": "=1+1"}
    (ground / "recipe.yaml").write_text(yaml.safe_dump(comparison, sort_keys=False))
    out = ground / "compared"
    said = said_by(ground, "compare", "--config", str(ground / "recipe.yaml"), "--out", str(out))
    page = (out / "comparison.md").read_text(encoding="utf-8")
    check_markdown(page)
    check_csv(out / "comparison.csv")
    with (out / "comparison.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"].removeprefix("'") for row in rows] == list(variants)
    for name in variants:
        assert name in said
        assert markdown(name) in page


def test_notes_of_a_report_that_somebody_sent(ground: Path, trained: Path):
    data = read_record(trained)
    folder = ground / "sent"
    folder.mkdir()
    write_record(
        folder, replace(data, notes=NAMES, models=[{**row, "model": NAMES[0]} for row in data.models])
    )
    said = said_by(
        ground, "report", str(folder), str(trained), "--out", str(ground / "page.html"), report=True
    )
    for name in NAMES:
        assert printable(name) in said


def svg_of(draw: Callable[[Path], None], folder: Path) -> str:
    draw(folder / "drawn.svg")
    return (folder / "drawn.svg").read_text(encoding="utf-8")


def test_every_picture(tmp_path: Path):
    short = [name for name in NAMES if len(printable(name)) <= 16]
    matrix = np.eye(len(NAMES))
    rows = [comparison_row(name, [50.0, 51.0], None) for name in NAMES]
    benched = [network(name, form("dense", 50.0, eager=1)) for name in NAMES]
    points = [Point(name, 1.0, 50.0) for name in NAMES]
    interval = {"value": 50.0, "low": 40.0, "high": 60.0, "images": 5}
    scores = {
        "classes": [{"name": name, **interval} for name in NAMES],
        "confusion": matrix.tolist(),
        "top1": interval,
        "calibration": {"ece": 1.0, "bins": []},
    }
    check_svg(svg_of(lambda path: comparison_picture(path, rows, "a", NAMES[0]), tmp_path), *short)
    check_svg(svg_of(lambda path: latency_picture(path, benched), tmp_path), *short)
    check_svg(
        svg_of(lambda path: maps_picture(path, dict.fromkeys(NAMES, matrix), {}, "a"), tmp_path), *NAMES
    )
    check_svg(evaluation_svg(scores, "".join(NAMES)), *short, "".join(NAMES))
    check_svg(str(matrix_svg(matrix, NAMES, NAMES, "".join(NAMES))), *NAMES)
    check_svg(str(shares_chart(NAMES, [("".join(NAMES), [0.5] * len(NAMES))])[0]), *NAMES)
    check_svg(str(cost_svg(points, COSTS[0], "a")))


@pytest.mark.parametrize("draw", [comparison_picture, maps_picture, latency_picture])
def test_every_picture_of_pixels(tmp_path: Path, draw: Callable[..., None]):
    given = {
        comparison_picture: ([comparison_row(name, [50.0], None) for name in NAMES], NAMES[0], NAMES[1]),
        maps_picture: (dict.fromkeys(NAMES, np.eye(4)), {}, NAMES[0]),
        latency_picture: ([network(name, form("dense", 50.0, eager=1)) for name in NAMES],),
    }[draw]
    draw(tmp_path / "drawn.png", *given)
    assert (tmp_path / "drawn.png").stat().st_size > 1000
