"""Losses, one a file; the file's name is the loss's name in a recipe."""

from isometry.losses.base import BatchLoss, Loss, available, build_loss, find_loss
from isometry.losses.ce import CrossEntropy
from isometry.losses.dkd import DecoupledKD
from isometry.losses.embedding import Embedding
from isometry.losses.hard import HardLabel
from isometry.losses.inter import InterImage
from isometry.losses.intra import IntraImage
from isometry.losses.nkd import NormalisedKD
from isometry.losses.orthogonal import OrthogonalProjection
from isometry.losses.random import RandomPatches
from isometry.losses.similarity import Similarity
from isometry.losses.soft import SoftLabel
from isometry.losses.sparsity import Sparsity
from isometry.losses.whole import WholeBatch

__all__ = [
    "BatchLoss",
    "CrossEntropy",
    "DecoupledKD",
    "Embedding",
    "HardLabel",
    "InterImage",
    "IntraImage",
    "Loss",
    "NormalisedKD",
    "OrthogonalProjection",
    "RandomPatches",
    "Similarity",
    "SoftLabel",
    "Sparsity",
    "WholeBatch",
    "available",
    "build_loss",
    "find_loss",
]
