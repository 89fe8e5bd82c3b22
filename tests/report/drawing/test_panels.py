import math

import pytest

from isometry.report.drawing.panels import epoch_range, never_finite, panels

NAN = float("nan")


def test_panels_come_in_reading_order_and_group_what_shares_an_axis():
    row = {
        "epoch": 0, "step": 9, "lr": 1e-3, "val/loss": 2.0, "val_ema/loss": 2.1, "train/loss": 3.0,
        "train/whole": 0.1, "train/soft": 1.0, "val/top5": 60.0, "val_ema/top1": 20.0, "val/top1": 21.0,
        "train/top1": 25.0,
    }  # fmt: skip
    found = panels([row])
    assert [panel.metric for panel in found] == [
        "top1", "train/loss", "train/whole", "train/soft", "top5", "loss", "lr",
    ]  # fmt: skip
    assert [line.name for line in found[0].series] == [
        "validation, averaged weights",
        "validation",
        "training",
    ]
    assert len(found[5].series) == 2


def test_an_unmeasured_epoch_keeps_the_line_and_a_bad_one_breaks_it():
    rows = [{"epoch": 0, "val/top1": 10.0}, {"epoch": 1}, {"epoch": 2, "val/top1": None}]
    rows += [{"epoch": 3, "val/top1": math.inf}, {"epoch": 4, "val/top1": 30.0}]
    (panel,) = panels(rows)
    (line,) = panel.series
    assert line.epochs == (0.0, 3.0, 4.0)
    assert math.isnan(line.values[1])
    assert line.last == (4.0, 30.0)
    assert panel.note == "not finite in epoch 3"


def test_a_long_list_of_bad_epochs_is_cut():
    rows = [{"epoch": epoch, "train/loss": NAN} for epoch in range(9)] + [{"epoch": 9, "train/loss": 1.0}]
    assert panels(rows)[0].note == "not finite in epochs 0, 1, 2, 3, …"


def test_what_was_never_finite_has_no_panel_and_is_named():
    rows = [
        {"train/loss": NAN, "train/soft": 1.0, "train/whole": None, "step": NAN},
        {"train/loss": math.inf},
    ]
    assert [panel.metric for panel in panels(rows)] == ["train/soft"]
    assert never_finite(rows) == ["train/loss"]


@pytest.mark.parametrize(
    ("key", "values", "log"),
    [
        ("train/loss", [5.0, 0.1], True),
        ("train/loss", [5.0, 1.0], False),
        ("train/loss", [5.0, 0.0], False),
        ("train/loss", [5.0, -0.1], False),
        ("val/top1", [90.0, 1.0], False),
        ("lr", [1e-3, 1e-6], False),
    ],
)
def test_only_losses_that_span_much_are_logarithmic(key, values, log):
    (panel,) = panels([{key: value} for value in values])
    assert (panel.log_span is not None) is log


def test_the_axis_covers_all_epochs_or_counts_rows():
    assert epoch_range([{"epoch": 3}, {"epoch": 7}]) == (3.0, 7.0)
    assert epoch_range([{}, {}, {}]) == (0.0, 2.0)


def test_losses_of_detection_have_their_names():
    row = {f"train/{name}": 1.0 for name in ("classification", "bbox_regression", "bbox_ctrness", "soft")}
    titles = [panel.title for panel in panels([{"epoch": 1, **row}])]
    assert sorted(titles) == ["Centre-ness loss", "Focal loss", "GIoU loss", "Term “soft”"]
