"""Cosines in blocks, and the nearest by them."""

import numpy as np
import pytest
import torch

from isometry.evaluation.dense import neighbours
from isometry.evaluation.dense.neighbours import cosine_blocks, nearest
from oracles.dense import cosine, ranking


@pytest.mark.parametrize("block_bytes", [1, 1000, 2**25])
def test_blocks_are_the_rows_of_the_matrix_of_cosines(block_bytes, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block_bytes)
    features = torch.randn(17, 5, generator=torch.Generator().manual_seed(0))
    features[3] = 0
    rows = [(numbers, block.clone()) for numbers, block in cosine_blocks(features)]
    assert torch.cat([numbers for numbers, _ in rows]).tolist() == list(range(17))
    assert max(block.nbytes for _, block in rows) <= max(block_bytes, 17 * 4)
    vectors = features.tolist()
    wanted = [[-2 if i == j else cosine(a, b) for j, b in enumerate(vectors)] for i, a in enumerate(vectors)]
    torch.testing.assert_close(torch.cat([block for _, block in rows]), torch.tensor(wanted))


@pytest.mark.parametrize("exact_ties", [False, True])
def test_the_nearest_are_the_first_of_the_ranking(exact_ties):
    random = np.random.default_rng(0)
    values = random.choice([-0.5, 0.5], size=(40, 4)) if exact_ties else random.normal(size=(40, 6))
    for count in (1, 3, 10, 39):
        found = nearest(torch.tensor(values), count).tolist()
        for number, row in enumerate(found):
            assert set(row) == set(ranking(values.tolist(), number)[:count])
