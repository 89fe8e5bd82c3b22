"""Relation maps of a real digit: its patches through random projections stand in for trained blocks."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from isometry.report.records.data import RelationMaps


def relation_map(seed: int, side: int, noise: float = 0.0) -> np.ndarray:
    """Cosines between the patches of one digit, seen through a random layer of its own (side² × side²)."""
    generator = np.random.default_rng(seed)
    digit = Image.fromarray((load_digits().images[7] / 16).astype(np.float32)).resize((4 * side, 4 * side))
    patches = np.asarray(digit).reshape(side, 4, side, 4).transpose(0, 2, 1, 3).reshape(side * side, 16)
    tokens = np.tanh(patches @ generator.standard_normal((16, 64)) + generator.standard_normal(64))
    tokens = tokens + noise * generator.standard_normal(tokens.shape)
    tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    return tokens @ tokens.T


def relations(side: int, blocks: int = 2) -> list[RelationMaps]:
    rows = []
    for block in range(blocks):
        teacher = relation_map(block, side)
        before, after = relation_map(50 + block, side, 0.6), relation_map(block, side, 0.1)
        gaps = [float(((one - teacher) ** 2).mean()) for one in (before, after)]
        rows.append(RelationMaps(f"block {block + 1} ◄ {2 * block + 2}", teacher, before, after, *gaps))
    return rows
