"""The k entries with the smallest keys of a stream, in one pass."""

import torch
from torch import Tensor


class SmallestK:
    """The ``count`` added entries with the lowest keys, lowest first; ties go to the first added.

    With random keys it is a uniform sample. NaN keys come last. ``tensors`` are those added with these keys, at most
    ``count`` rows each; empty at first.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.tensors: tuple[Tensor, ...] = ()
        self._keys = torch.zeros(0)

    def add(self, keys_B: Tensor, *tensors: Tensor) -> None:
        """Adds entries: keys (B,) and tensors (B, ...), the same number of tensors at every call."""
        if self.tensors:
            keys_B = torch.cat([self._keys, keys_B])
            tensors = tuple(torch.cat(pair) for pair in zip(self.tensors, tensors, strict=True))
        first = keys_B.argsort(stable=True)[: self.count]
        self._keys = keys_B[first]
        self.tensors = tuple(tensor[first.to(tensor.device)] for tensor in tensors)
