"""Which pictures are the best and the worst, and that they are read again as they were answered."""

import pytest
import torch

from helpers.squares import squares
from isometry.evaluation.dense.answers import PictureScore, answers_to
from isometry.evaluation.dense.examples import extremes, read_examples


def chosen(*pictures, most=2):
    """By group the indices that are chosen of (score, objects)."""
    scored = [PictureScore(place, 10 + place, float(s), o) for place, (s, o) in enumerate(pictures)]
    return {group: [each.index for each in found] for group, found in extremes(scored, most).items()}


def test_the_best_and_the_worst_pictures_are_chosen():
    found = chosen((50, 1), (90, 1), (10, 1), (90, 1), (30, 1), (90, 1), (10, 1))
    assert found == {"worst": [12, 16], "best": [11, 13]}


def test_of_equal_scores_those_with_most_objects():
    found = chosen((0, 1), (100, 0), (0, 3), (100, 2), (0, 2), (100, 5))
    assert found == {"worst": [12, 14], "best": [15, 13]}


def test_none_of_score_0_is_among_the_best_and_none_is_shown_twice():
    assert chosen((0, 1), (0, 4), (0, 2), (7, 1), most=4) == {"worst": [11, 12, 10], "best": [13]}
    assert chosen(*[(50, 1)] * 5, most=4) == {"worst": [14], "best": [10, 11, 12, 13]}


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_chosen_pictures_are_those_that_were_answered(task):
    network, loader, preprocess = squares(task)
    answers = answers_to(network, loader, preprocess)
    pixels = torch.cat([batch.images for batch in loader])
    masks = torch.cat([batch.targets for batch in loader])
    examples = [
        each for group in read_examples(network, loader, preprocess, answers).values() for each in group
    ]
    assert sorted(each.picture.index for each in examples) == list(range(5))
    for each in examples:
        assert torch.equal(each.pixels, pixels[each.picture.index])
        assert each.picture == answers.pictures[each.picture.place]
        if task == "segment":
            assert torch.equal(each.truth, masks[each.picture.index])
            counted = each.truth != 255
            assert (each.answer == each.truth)[counted].float().mean() > 0.9
        else:
            assert each.truth is each.answer is None
