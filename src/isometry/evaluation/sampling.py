"""A few of many images, chosen in one pass over data of any length."""

import torch
from torch import Tensor


class SmallestK:
    """The ``count`` entries of the lowest keys among all that were added, lowest first; of equal ones the first added.

    With keys drawn at random it is a sample in which every entry is as likely as any other. A key that is not a number
    comes after all others.

    Attributes:
        tensors: what was added with the keys, at most ``count`` rows each; empty before anything was.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.tensors: tuple[Tensor, ...] = ()
        self._keys = torch.zeros(0)

    def add(self, keys_B: Tensor, *tensors: Tensor) -> None:
        """Takes entries: keys (B,), and any number of tensors (B, ...), as many at every call."""
        if self.tensors:
            keys_B = torch.cat([self._keys, keys_B])
            tensors = tuple(torch.cat(pair) for pair in zip(self.tensors, tensors, strict=True))
        first = keys_B.argsort(stable=True)[: self.count]
        self._keys = keys_B[first]
        self.tensors = tuple(tensor[first.to(tensor.device)] for tensor in tensors)
