"""What a person is told of an export beyond its figures."""

import pytest

from isometry.export.tables import interval_text, latency_text, notes_on, skipping_text


def row(variant, top1, *ms):
    sizes = (1, 8)
    speeds = [{"batch_size": size, "ms": each} for size, each in zip(sizes, ms, strict=True)]
    return {"form": variant, "speeds": speeds} | ({} if top1 is None else {"top1": top1})


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (row("onnx, int8", 92.6, 1.0, 5.0), []),
        (row("onnx, int8", 91.9, 1.0, 5.0), ["int8 loses 1.1 points of top-1"]),
        (row("onnx, int8", 93.0, 2.5, 5.0), ["int8 is no faster here at batch 1"]),
        (row("onnx, skipping", 93.0, 1.0, 9.0), []),
        (
            row("onnx, skipping", 93.0, 1.0, 11.0),
            ["At batch 8 skipping takes 11 ms, and computing every channel 10"],
        ),
    ],
)
def test_what_a_reader_may_not_have_expected_is_said(last, said):
    notes = notes_on([row("torch", 93.0, 4.0, 20.0), row("onnx", 93.0, 2.0, 10.0), last])
    assert len(notes) == len(said)
    assert all(note.startswith(words) for note, words in zip(notes, said, strict=True))


def test_without_labels_and_without_another_form_there_is_nothing_to_say():
    assert notes_on([row("torch", None, 4.0, 20.0), row("onnx", None, 5.0, 30.0)]) == []
    both = [row("torch", None, 4.0, 20.0), row("onnx", None, 2.0, 10.0)]
    assert notes_on([*both, row("onnx, int8", None, 1.0, 5.0)]) == []


def test_figures_in_words():
    accuracy = {"top1": 96.97, "top1_low": 95.1, "top1_high": 98.2, "images": 1500, "part": "val"}
    assert (
        interval_text(accuracy) == "97.0 % (95 % interval of Wilson 95.1 to 98.2 %, 1,500 validation images)"
    )
    speed = {"ms": 0.612, "ms_low": 0.59, "ms_high": 0.66, "rounds": 1812}
    assert latency_text(speed) == "median 0.612 ms (quartiles 0.59 to 0.66, 1,812 passes)"
    gain = {"median": 1.354, "low": 1.32, "high": 1.43, "rounds": 42}
    assert skipping_text(gain).startswith("Skipping is 1.35× as fast at batch 1")
