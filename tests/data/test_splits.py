"""The validation split of one folder: a share of each class, and never of another run's training images."""

import random

import pytest

from isometry.data.splits import shuffled_classes, split_off


def split_of_the_first_version(targets: list[int], fraction: float) -> list[int]:
    split: list[int] = []
    for members in shuffled_classes(targets):
        wanted = max(1, round(len(members) * fraction))
        split.extend(members[: min(wanted, len(members) - 1)].tolist())
    return sorted(split)


def drawn(seed: int) -> list[int]:
    generator = random.Random(seed)
    targets = [label for label in range(8) for _ in range(generator.choice([1, 2, 3, 10, 25]))]
    generator.shuffle(targets)
    return targets


@pytest.mark.parametrize("fraction", [1e-9, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(5))
def test_a_split_is_that_of_every_earlier_version(seed: int, fraction: float):
    targets = drawn(seed)
    kept, split = split_off(targets, fraction)
    assert split == split_of_the_first_version(targets, fraction)
    assert sorted([*kept, *split]) == list(range(len(targets)))


@pytest.mark.parametrize("fraction", [1e-9, 0.1, 0.95])
@pytest.mark.parametrize("seed", range(5))
def test_images_that_earlier_versions_did_not_read_move_no_other(seed: int, fraction: float):
    targets = drawn(seed)
    since = [random.Random(seed + place).choice([0, 0, 1, 2]) for place in range(len(targets))]
    kept, split = split_off(targets, fraction, since)
    for version in (0, 1):
        old = [place for place in range(len(targets)) if since[place] <= version]
        _, before = split_off([targets[place] for place in old], fraction, [since[place] for place in old])
        assert [place for place in split if since[place] <= version] == [old[place] for place in before]
    assert sorted([*kept, *split]) == list(range(len(targets)))
    for label in set(targets):
        both = {targets[place] for place in kept}, {targets[place] for place in split}
        assert label in both[0]
        assert (label in both[1]) == (targets.count(label) > 1)


def test_nothing_to_split():
    assert split_off([], 0.1) == ([], [])
