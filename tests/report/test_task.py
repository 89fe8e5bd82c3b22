"""The section on boxes and masks: its words, its marks without colour, its record."""

import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from isometry.data.dense import annotations
from isometry.report.drawing.boxes import (
    IGNORED,
    STYLES,
    boxes_svg,
    class_colour,
    errors_svg,
    mask_svg,
    text_places,
)
from isometry.report.page import render_report
from isometry.report.records.data import DrawnBox, ReportData, TaskData, TaskPicture
from isometry.report.records.record import RecordError, read_record, write_record
from isometry.report.tables import rich_table
from isometry.report.task import (
    box_words,
    choice,
    classes_grid,
    intervals_text,
    mask_words,
    scores_grid,
    shown_boxes,
    task_figures,
    task_headline,
    task_section,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 1), dtype=np.uint8)
EVIL = '<script>alert("1")</script>'


def boxes_picture(group="worst"):
    truth = [DrawnBox((1, 1, 6, 6), "cat", "found"), DrawnBox((10, 2, 18, 9), EVIL, "missed")]
    answer = [
        DrawnBox((1, 1, 7, 6), "cat 97 %", "right"),
        DrawnBox((11, 2, 18, 9), "dog 60 %", "wrong class"),
    ]
    return TaskPicture("scene 3", group, 50.0, PIXELS, truth, answer)


def masks_picture():
    truth, answer = np.zeros((12, 20), np.uint8), np.zeros((12, 20), np.uint8)
    truth[:4], answer[:4, :10], answer[:4, 10:] = 1, 1, 2
    truth[11] = 255
    return TaskPicture("scene 4", "best", 75.0, PIXELS, truth_mask=truth, answer_mask=answer)


def detected(**changes):
    scores = {
        "ap": 41.25,
        "ap50": 60.0,
        "ap75": 40.0,
        "ap_small": 41.25,
        "ap_medium": None,
        "ap_large": None,
        "ar100": 51.0,
    }
    scores |= {"ap_low": 38.04, "ap_high": 44.4, "ap50_low": 55.5, "ap50_high": 64.5}
    rows = [
        {"name": "cat", "objects": 7, "value": 50.0, "ap50": 71.0, "ar100": 61.0, "train": 1234},
        {"name": EVIL, "objects": 0, "value": None, "ap50": None, "ar100": None, "train": 5},
    ]
    data = TaskData("detect", "test", 1200, scores, rows, [boxes_picture(), boxes_picture("best")])
    return replace(data, **changes)


def segmented():
    scores = {"miou": 55.0, "miou_low": 50.2, "miou_high": 60.4}
    rows = [{"name": name, "pixels": 9, "value": 55.0} for name in ("background", "one", "two")]
    return TaskData("segment", "val", 12, scores, rows, [masks_picture()])


def test_words_tell_what_is_right_and_wrong():
    assert box_words(boxes_picture()) == f"right 1; wrong class 1 (dog 60 %); missed 1 ({EVIL})"
    assert mask_words(masks_picture(), ["background", "one", "two"]) == (
        "82 % of the pixels right; one as two: 40 pixels"
    )
    assert task_headline(detected()) == (
        "The network reaches an average precision (AP) of 41.2 % on 1,200 images of the test part."
    )


def test_intervals_in_words_and_in_key_figures():
    assert intervals_text(detected().scores) == (
        "95 % interval over pictures: AP 38.0 to 44.4 %, AP50 55.5 to 64.5 %"
    )
    assert task_figures(detected())[0] == ("AP", "41.2 %", "95 % interval over pictures 38.0 to 44.4 %")
    # Runs of older versions have none.
    assert intervals_text({"ap": 41.2, "top1": 90.0}) == ""
    assert task_figures(replace(detected(), scores={"ap": 41.2})) == [("AP", "41.2 %", "")]


def test_verdicts_differ_without_colour():
    marks = [(style.dashes, style.sign) for verdict, style in STYLES.items() if verdict != "found"]
    assert len(set(marks)) == len(marks)


@pytest.mark.parametrize("data", [detected(), segmented()], ids=["boxes", "masks"])
def test_a_page_shows_scores_classes_and_pictures_and_is_the_same_from_its_record(data, tmp_path):
    report = ReportData("a title", models=[{"model": "m", "role": "student", "part": data.part}], task=data)
    page = render_report(report)
    write_record(tmp_path, report)
    assert render_report(read_record(tmp_path)) == page
    assert EVIL not in page
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)
    section = page[page.index('<section id="task"') :]
    shown = 4 if data.task == "detect" else 3
    assert section.count("<svg") == section.count("<image") == shown
    assert section.count('role="img"') == shown
    if data.task == "detect":
        assert all(
            text in section
            for text in (
                "41.2",
                "38.0 to 44.4",
                "55.5 to 64.5",
                "AP75",
                "✓ cat 97 %",
                "✗ dog 60 %",
                "missed ",
                "stroke-dasharray",
            )
        )
        assert "<h2>Boxes</h2>" in section
    else:
        assert all(text in section for text in ("50.2 to 60.4", "one as two: 40 pixels", "wrong pixels"))
        assert "<h2>Masks</h2>" in section


def test_a_size_without_objects_has_a_dash_and_classes_have_their_training_boxes():
    header, rows = scores_grid(detected())
    assert header == ["part", "AP", "AP50", "AP75", "small", "medium", "large", "AR@100"]
    assert rows == [["test", "41.2 %", "60.0 %", "40.0 %", "41.2 %", "–", "–", "51.0 %"]]
    header, rows = classes_grid(detected())
    assert header == ["class", "AP", "AP50", "AR@100", "objects", "boxes in training"]
    assert rows == [["cat", "50.0 %", "71.0 %", "61.0 %", "7", "1,234"], [EVIL, "–", "–", "–", "0", "5"]]


def test_the_tables_fit_a_terminal_of_80_columns():
    console = Console(width=80, file=StringIO())
    console.print(rich_table(scores_grid(detected(part="val"))))
    console.print(rich_table(classes_grid(detected())))
    said = console.file.getvalue()
    assert "validation" in said
    assert all(heading in said for heading in ("medium", "AR@100", "boxes in training"))


def test_the_page_says_which_boxes_and_which_pictures_it_shows():
    chosen = detected(least_score=28.37, f1=33.33)
    assert shown_boxes(chosen) == (
        "Boxes with a score of at least 28 % are shown, with which F1 over all pictures is largest: 33.3 %."
    )
    assert "at least 28\u00a0%" in render_report(ReportData("t", task=chosen))
    assert shown_boxes(detected(least_score=None)).startswith("No box is right; those of each picture with")
    # Of older versions.
    assert shown_boxes(detected()) == "Boxes with a score of at least 50 % are shown."
    assert shown_boxes(segmented()) == choice(detected()) == ""
    assert (
        choice(detected(zeros=3))
        == "3 pictures have F1 0 %; of equal ones those with most objects are shown."
    )
    assert choice(detected(zeros=1, pictures=[boxes_picture()])) == (
        "1 picture has F1 0 %; of equal ones those with most objects are shown. None is above."
    )


def test_titles_are_file_names_with_the_path_as_a_tooltip():
    picture = replace(boxes_picture(), name="/data/val/17.jpg")
    page = render_report(ReportData("t", task=detected(pictures=[picture])))
    assert '<h4 title="/data/val/17.jpg">17.jpg: F1 50\u00a0%</h4>' in page
    assert page.count("/data/val") == 1


def test_the_legend_has_the_classes_that_are_seen():
    section = task_section(segmented())
    assert section is not None
    assert section["legend"] == [("none", "background"), (class_colour(1), "one"), (class_colour(2), "two")]
    truth = np.full((12, 20), 255, np.uint8)
    truth[3] = 2
    picture = TaskPicture("p", "best", 1.0, PIXELS, truth_mask=truth, answer_mask=np.full_like(truth, 2))
    section = task_section(replace(segmented(), pictures=[picture]))
    assert section is not None
    assert section["legend"] == [(class_colour(2), "two")]


def test_texts_of_near_boxes_do_not_overlap():
    picture = np.zeros((96, 96, 1), np.uint8)
    boxes = [DrawnBox((30 + shift, 30, 60 + shift, 60), "person 57 %", "missed") for shift in (0, 1, 2, 3)]
    boxes += [DrawnBox((0, 0, 96, 96), "all", "right")]
    places = text_places(boxes, 96, 96)
    for one, (left, top, right, bottom) in enumerate(places):
        assert 0 <= left < right <= 96
        assert 0 <= top < bottom <= 96
        for other in places[:one]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    drawn = str(boxes_svg(picture, boxes, "label"))
    assert drawn.count("<text") == drawn.count("<rect") == 5
    # Texts are over the lines of all boxes.
    assert drawn.rindex("<rect") < drawn.index("<text")


def test_a_record_with_a_mask_of_another_size_is_refused(tmp_path):
    write_record(tmp_path, ReportData("t", task=segmented()))
    text = (tmp_path / "report.json").read_text()
    swapped = text.replace('"task.pictures.0.truth_mask"', '"task.pictures.0.pixels"')
    assert swapped != text
    (tmp_path / "report.json").write_text(swapped)
    with pytest.raises(RecordError):
        read_record(tmp_path)
    with pytest.raises(ValueError, match="a mask of"):
        TaskPicture("p", "best", 1.0, PIXELS, truth_mask=np.zeros((3, 3), np.uint8))


def test_classes_have_colours_of_their_own():
    colours = [class_colour(number) for number in range(1, 60)]
    assert len(set(colours)) == len(colours)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_text_stays_inside_the_picture():
    box = DrawnBox((15, 0, 19, 8), "a long name 99 %", "right")
    (start,) = re.findall(r'<text x="([^"]*)" y="([^"]*)"', boxes_svg(PIXELS, [box], "label"))
    assert 0 <= float(start[0]) < 15
    assert float(start[1]) > 0


def test_pixels_are_ignored_where_the_data_ignore_them():
    """A report is drawn without loading the data's modules, so its value is its own."""
    assert IGNORED == annotations.IGNORED


def test_ignored_pixels_and_the_background_are_not_coloured():
    mask = np.full((12, 20), 255, np.uint8)
    mask[0] = 0
    assert str(mask_svg(PIXELS, mask, "l")) == str(mask_svg(np.repeat(PIXELS, 3, 2), mask, "l"))
    pale = str(errors_svg(PIXELS, mask, np.ones((12, 20), np.uint8), "l"))
    assert pale != str(errors_svg(PIXELS, mask, np.zeros((12, 20), np.uint8), "l"))
