"""The k smallest in one pass, against sorting."""

import pytest
import torch

from isometry.evaluation.sampling import SmallestK


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [3, 0, 20, 17]])
@pytest.mark.parametrize("count", [1, 5, 40, 60])
def test_the_smallest_are_those_of_sorting(sizes, count):
    # Integers, so that many are equal.
    keys = torch.randint(0, 9, (40,), generator=torch.Generator().manual_seed(0)).float()
    lowest = SmallestK(count)
    numbers = torch.arange(40)
    for some, named in zip(keys.split(sizes), numbers.split(sizes), strict=True):
        lowest.add(some, named, named[:, None] * torch.ones(2))
    wanted = sorted(range(40), key=lambda number: (float(keys[number]), number))[:count]
    assert lowest.tensors[0].tolist() == wanted
    assert lowest.tensors[1].tolist() == [[float(number)] * 2 for number in wanted]


def test_nan_comes_last():
    lowest = SmallestK(2)
    lowest.add(torch.tensor([float("nan"), 3.0]), torch.tensor([0, 1]))
    lowest.add(torch.tensor([float("nan"), 1.0]), torch.tensor([2, 3]))
    assert lowest.tensors[0].tolist() == [3, 1]


def test_without_input_nothing_is_kept():
    assert SmallestK(3).tensors == ()


def test_random_keys_draw_uniformly():
    """5 of 20 are kept, a thousand times: each about 250 times, within 6 standard deviations."""
    generator = torch.Generator().manual_seed(0)
    times = torch.zeros(20)
    for _ in range(1000):
        lowest = SmallestK(5)
        for batch in torch.arange(20).split(4):
            lowest.add(torch.rand(4, generator=generator), batch)
        times[lowest.tensors[0]] += 1
    assert int(times.sum()) == 5000
    assert float((times - 250).abs().max()) < 6 * (1000 * 0.25 * 0.75) ** 0.5
