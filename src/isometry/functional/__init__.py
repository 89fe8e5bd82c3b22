"""The maths: pure functions of tensors, which import torch alone."""

from isometry.functional.relations import gram_gap, linear_cka, relation_map

__all__ = ["gram_gap", "linear_cka", "relation_map"]
