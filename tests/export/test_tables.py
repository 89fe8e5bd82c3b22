"""Notes on an export, and its figures as text."""

import pytest

from helpers.messages import mentions
from isometry.export.tables import forms_table, interval_text, latency_text, notes_on, skipping_text


def row(variant, top1, *ms):
    sizes = (1, 8)
    speeds = [{"batch_size": size, "ms": each} for size, each in zip(sizes, ms, strict=True)]
    return {"form": variant, "speeds": speeds} | ({} if top1 is None else {"top1": top1})


@pytest.mark.parametrize(
    ("last", "noted"),
    [
        (row("onnx, int8", 92.6, 1.0, 5.0), []),
        (row("onnx, int8", 91.9, 1.0, 5.0), ["int8 … 1.1 points … --quantize"]),
        (row("onnx, int8", 93.0, 2.5, 5.0), ["int8 … 2.5 ms … batch 1 … 2 ms"]),
        (row("onnx, skipping", 93.0, 1.0, 9.0), []),
        (
            row("onnx, skipping", 93.0, 1.0, 11.0),
            ["batch 8 … 11 ms … 10 ms … --masked"],
        ),
    ],
)
def test_drawbacks_of_the_exported_variant_are_noted(last, noted):
    notes = notes_on([row("torch", 93.0, 4.0, 20.0), row("onnx", 93.0, 2.0, 10.0), last])
    assert len(notes) == len(noted)
    assert all(mentions(note, words) for note, words in zip(notes, noted, strict=True))


def test_without_labels_or_another_variant_nothing_is_noted():
    assert notes_on([row("torch", None, 4.0, 20.0), row("onnx", None, 5.0, 30.0)]) == []
    both = [row("torch", None, 4.0, 20.0), row("onnx", None, 2.0, 10.0)]
    assert notes_on([*both, row("onnx, int8", None, 1.0, 5.0)]) == []


def test_uneven_classes_have_a_column_beside_top1():
    judged = {"part": "test", "images": 60, "agreement": 100.0}
    even = [row(form, 90.0, 1.0, 5.0) | judged for form in ("torch", "onnx")]
    assert [str(column.header) for column in forms_table(even).columns][2:4] == [
        "top-1 on test",
        "same class",
    ]
    columns = forms_table([each | {"top1_by_class": 55.55} for each in even]).columns
    assert [str(column.header) for column in columns][2:5] == [
        "top-1 on test",
        "mean of classes",
        "same class",
    ]
    assert [str(cell) for cell in columns[3].cells] == ["55.5 %", "55.5 %"]


def test_figures_as_text():
    accuracy = {"top1": 96.97, "top1_low": 95.1, "top1_high": 98.2, "images": 1500, "part": "val"}
    assert mentions(interval_text(accuracy), "97.0 % … Wilson … 95.1 to 98.2 % … 1,500 validation images")
    assert interval_text(accuracy | {"top1_by_class": 55.55}).endswith("images; mean of classes 55.5 %)")
    speed = {"ms": 0.612, "ms_low": 0.59, "ms_high": 0.66, "rounds": 1812}
    assert mentions(latency_text(speed), "median 0.612 ms … 0.59 to 0.66 … 1,812")
    gain = {"median": 1.354, "low": 1.32, "high": 1.43, "rounds": 42}
    assert mentions(skipping_text(gain), "1.35× … batch 1 … 1.32× to 1.43× … 42")
