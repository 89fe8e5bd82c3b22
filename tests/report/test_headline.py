import numpy as np
import pytest

from isometry.report.headline import best_validation, gap_sentence, headline, key_figures
from isometry.report.records.data import RelationMaps

TEACHER = {"model": "cait", "role": "teacher", "top1": 92.0, "top1_part": "test", "params": 10_000_000}
GAP = "the mean squared difference to the teacher's cosines"
STUDENT = {"model": "deit", "role": "student", "top1": 90.712, "top1_part": "test", "params": 910_000}


@pytest.mark.parametrize(
    ("teacher", "student", "sentence"),
    [
        ({}, {}, "The student keeps 98.6 % of the teacher's accuracy with 9.1 % of its parameters."),
        ({}, {"params": None}, "The student keeps 98.6 % of the teacher's accuracy."),
        (
            {},
            {"params": 12_000_000},
            "The student keeps 98.6 % of the teacher's accuracy with 1.2 times its parameters.",
        ),
        (
            {},
            {"top1": 93.04},
            "The student reaches 93.0 %, 1.0 points above its teacher, with 9.1 % of its parameters.",
        ),
        ({}, {"top1": 91.97}, "The student matches its teacher at 92.0 %, with 9.1 % of its parameters."),
        (
            {},
            {"top1": 61.0},
            "The student falls well short of its teacher: 61.0 % against 92.0 %, "
            "with 9.1 % of its parameters.",
        ),
        (
            {},
            {"top1_part": "val"},
            "The student reaches 90.7 % top-1 on the validation part with 910 k parameters; "
            "its teacher was measured on other images, so the two are not compared.",
        ),
        ({"top1": None}, {}, "The student reaches 90.7 % top-1 on the test part with 910 k parameters."),
        (
            {"top1": float("nan")},
            {},
            "The student reaches 90.7 % top-1 on the test part with 910 k parameters.",
        ),
        (
            {"top1": 0.0},
            {"top1": 0.0},
            "The student matches its teacher at 0.0 %, with 9.1 % of its parameters.",
        ),
        ({}, {"top1": float("nan")}, "No accuracy was measured in this run."),
    ],
)
def test_the_sentence_says_what_happened(teacher, student, sentence):
    assert headline([TEACHER | teacher, STUDENT | student]) == sentence


def test_other_rows_do_not_matter():
    baseline = {"model": "KD alone", "top1": 99.0, "top1_part": "test", "params": 1}
    assert headline([baseline, TEACHER, STUDENT]) == headline([TEACHER, STUDENT])


def test_a_lone_model_is_the_student():
    assert headline([{"model": "vit", "top1": 93.0}]) == "The student reaches 93.0 % top-1."


def test_two_models_without_roles_are_not_guessed_at():
    rows = [{"model": "a", "top1": 93.0}, {"model": "b", "top1": 94.0}]
    assert headline(rows) == "No accuracy was measured in this run."


def test_without_a_table_the_curves_speak():
    rows = [
        {"epoch": 4, "val/top1": 80.0, "train/top1": 99.0},
        {"epoch": 5, "val_ema/top1": 81.5, "val/top1": None},
    ]
    assert best_validation(rows) == (81.5, 5)
    assert headline([], rows) == "The best validation accuracy is 81.5 %, in epoch 5."


def maps(before: float, after: float) -> RelationMaps:
    return RelationMaps("block", np.eye(2), np.eye(2), np.eye(2), before, after)


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        ([(0.2, 0.05), (0.4, 0.07)], f"Over 2 blocks, {GAP} fell from 0.3 to 0.06 (−80 %)."),
        ([(0.1, 0.12)], f"Over one block, {GAP} rose from 0.1 to 0.12 (+20 %)."),
        ([(0.2, 0.2)], f"Over one block, {GAP} stayed at 0.2."),
        ([(0.0, 0.1)], f"Over one block, {GAP} rose from 0 to 0.1."),
        ([(0.1, float("nan"))], "The gap to the teacher's cosines is not finite."),
    ],
)
def test_the_gap_sentence(gaps, words):
    assert gap_sentence([maps(*pair) for pair in gaps]) == words
    assert headline([], [], [maps(*pair) for pair in gaps]) == f"No accuracy was measured. {words}"


def test_key_figures_stand_beside_the_teachers():
    teacher = TEACHER | {"macs": 2e9, "images_per_s": 100.0}
    student = STUDENT | {"macs": 1e8, "images_per_s": 650.0}
    assert key_figures([teacher, student]) == [
        ("top-1 accuracy on the test part", "90.7 %", "teacher 92.0 %"),
        ("parameters", "910 k", "9.1 % of the teacher's 10.0 M"),
        ("multiply–accumulates", "100 M", "5.0 % of the teacher's 2.00 G"),
        ("images a second", "650", "6.5 times the teacher's 100"),
    ]


def test_key_figures_compare_nothing_that_was_not_measured_alike():
    figures = key_figures([TEACHER | {"params": None}, STUDENT | {"top1_part": "val", "images_per_s": 5.0}])
    assert [detail for _, _, detail in figures] == ["", "", ""]
    assert key_figures([TEACHER]) == []
