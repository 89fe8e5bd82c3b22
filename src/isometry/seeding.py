"""Random seeds as functions of the run's position, so that a resumed run needs no stored generator state."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a fixed function of ``parts`` (run seed, purpose, epoch, step, rank, ...)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_cpu_generators(seed: int) -> None:
    """Seeds the global CPU generators of Python, NumPy and PyTorch, which timm's and torchvision's transforms use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def seed_global_generators(seed: int) -> None:
    """The same, and the GPU's generators, which timm's drop path uses."""
    seed_cpu_generators(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global CPU generators inside the block, and restores their state afterwards."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_cpu_generators(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
