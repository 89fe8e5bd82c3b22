import re

import numpy as np
import pytest

from isometry.report.headline import best_validation, gap_sentence, headline, key_figures
from isometry.report.records.data import RelationMaps

TEACHER = {"model": "cait", "role": "teacher", "top1": 92.0, "top1_part": "test", "params": 10_000_000}
STUDENT = {"model": "deit", "role": "student", "top1": 90.712, "top1_part": "test", "params": 910_000}


def figures(sentence: str) -> list[str]:
    return re.findall(r"\d[\d.]* (?:%|k|times|points)", sentence)


@pytest.mark.parametrize(
    ("teacher", "student", "verb", "expected"),
    [
        ({}, {}, "keeps", ["98.6 %", "9.1 %"]),
        ({}, {"params": None}, "keeps", ["98.6 %"]),
        ({}, {"params": 12_000_000}, "keeps", ["98.6 %", "1.2 times"]),
        ({}, {"top1": 93.04}, "above", ["93.0 %", "1.0 points", "9.1 %"]),
        ({}, {"top1": 91.97}, "matches", ["92.0 %", "9.1 %"]),
        ({}, {"top1": 61.0}, "short of", ["61.0 %", "92.0 %", "9.1 %"]),
        ({}, {"top1_part": "val"}, "not compared", ["90.7 %", "910 k"]),
        ({"top1": None}, {}, "reaches", ["90.7 %", "910 k"]),
        ({"top1": float("nan")}, {}, "reaches", ["90.7 %", "910 k"]),
        ({"top1": 0.0}, {"top1": 0.0}, "matches", ["0.0 %", "9.1 %"]),
        ({}, {"top1": float("nan")}, "No accuracy", []),
    ],
)
def test_the_sentence_has_the_figures(teacher, student, verb, expected):
    sentence = headline([TEACHER | teacher, STUDENT | student])
    assert verb in sentence
    assert figures(sentence) == expected


def test_other_rows_do_not_matter():
    baseline = {"model": "KD alone", "top1": 99.0, "top1_part": "test", "params": 1}
    assert headline([baseline, TEACHER, STUDENT]) == headline([TEACHER, STUDENT])


def test_a_lone_model_is_the_student():
    assert figures(headline([{"model": "vit", "top1": 93.0}])) == ["93.0 %"]


def test_two_models_without_roles_have_no_headline():
    rows = [{"model": "a", "top1": 93.0}, {"model": "b", "top1": 94.0}]
    assert headline(rows).startswith("No accuracy")


def test_without_a_table_the_best_validation_is_shown():
    rows = [
        {"epoch": 4, "val/top1": 80.0, "train/top1": 99.0},
        {"epoch": 5, "val_ema/top1": 81.5, "val/top1": None},
    ]
    best = best_validation(rows)
    assert best is not None
    assert (best["top1"], best["epoch"]) == (81.5, 5)
    assert "81.5 %, in epoch 5" in headline([], rows)
    rows[1]["val_ema/top1_by_class"] = 60.25
    assert "81.5 % (mean of classes 60.2 %), in epoch 5" in headline([], rows)


@pytest.mark.parametrize("top1", [61.0, 90.712, 91.97, 93.04])
def test_uneven_classes_have_their_mean_beside_top1(top1):
    student, teacher = STUDENT | {"top1": top1, "top1_by_class": 55.5}, TEACHER | {"top1_by_class": 66.6}
    plain = headline([TEACHER, STUDENT | {"top1": top1}])
    both = headline([teacher, student])
    assert both == plain.removesuffix(".") + "; mean of classes 55.5 % against the teacher's 66.6 %."
    assert headline([TEACHER, student]) == plain.removesuffix(".") + "; mean of classes 55.5 %."
    elsewhere = headline([teacher | {"top1_part": "val"}, student])
    assert "top-1 on the test part with 910 k parameters; mean of classes 55.5 %; its teacher" in elsewhere
    assert (
        key_figures([teacher, student])[0][2]
        == "mean of classes 55.5 %; teacher 92.0 % (mean of classes 66.6 %)"
    )


def maps(before: float, after: float) -> RelationMaps:
    return RelationMaps("block", np.eye(2), np.eye(2), np.eye(2), before, after)


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([(0.2, 0.05), (0.4, 0.07)], "fell from 0.3 to 0.06 (−80 %)"),
        ([(0.1, 0.12)], "rose from 0.1 to 0.12 (+20 %)"),
        ([(0.2, 0.2)], "stayed at 0.2"),
        ([(0.0, 0.1)], "rose from 0 to 0.1."),
        ([(0.1, float("nan"))], "not finite"),
    ],
)
def test_the_gap_sentence(gaps, expected):
    relations = [maps(*pair) for pair in gaps]
    assert expected in gap_sentence(relations)
    assert gap_sentence(relations) in headline([], [], relations)


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
