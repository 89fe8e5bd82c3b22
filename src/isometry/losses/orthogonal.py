"""Matches block features through an orthogonal projection (VkD: Miles et al., CVPR 2024, arXiv:2403.06213)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import orthogonal

from isometry.losses.base import Loss, check_same_tokens

Normalisation = Literal["standardise", "whiten", "none"]

CITATION = """@inproceedings{miles2024vkd,
  title     = {{VkD}: Improving Knowledge Distillation using Orthogonal Projections},
  author    = {Miles, Roy and Elezi, Ismail and Deng, Jiankang},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2024},
  note      = {arXiv:2403.06213}
}"""


class OrthogonalProjection(Loss):
    """``mean (P s − n(t))²`` over all tokens and channels, with a learned P: Cs -> Ct of orthonormal columns.

    P keeps the lengths and angles of the student's tokens, so what is learnt must be in the student and not in P. Of a
    student that is wider than its teacher, the rows are orthonormal, and P keeps those of a subspace. n normalises the
    teacher's tokens, over those of the batch:

    - ``"standardise"``: each channel to mean 0 and variance 1, the paper's choice for classification and detection;
    - ``"whiten"``: also without correlation between channels, its choice for the generation of images;
    - ``"none"``: as they are.

    P trains with the student and is not part of the saved student. Under torch.distributed each process normalises over
    its own tokens. Shapes: student (B, N, Cs), teacher (B, N, Ct) -> scalar, in float32.
    """

    citation = CITATION
    inputs = ("student_tokens", "teacher_tokens")
    relates_images = True

    def __init__(
        self, student_width: int, teacher_width: int, normalise: Normalisation = "standardise"
    ) -> None:
        super().__init__()
        # The exponential of a skew-symmetric matrix is orthogonal: a smooth map, of which P is a part.
        self.projection = orthogonal(
            nn.Linear(student_width, teacher_width, bias=False), orthogonal_map="matrix_exp"
        )
        self.normalise = normalise

    def forward(self, student_BNC: Tensor, teacher_BNC: Tensor) -> Tensor:
        check_same_tokens(student_BNC, teacher_BNC)
        wanted_BNC = normalised(teacher_BNC.flatten(0, -2), self.normalise).view(teacher_BNC.shape)
        return F.mse_loss(self.projection(student_BNC).float(), wanted_BNC)


def normalised(tokens_NC: Tensor, how: Normalisation) -> Tensor:
    """Tokens (N, C), normalised over N, in float32; directions in which all tokens are equal become 0 (ZCA)."""
    tokens_NC = tokens_NC.float()
    if how == "none":
        return tokens_NC
    tokens_NC = tokens_NC - tokens_NC.mean(0)
    if how == "standardise":
        return F.normalize(tokens_NC, dim=0) * len(tokens_NC) ** 0.5
    values_C, vectors_CC = torch.linalg.eigh(tokens_NC.mT @ tokens_NC / len(tokens_NC))
    kept_C = values_C > values_C[-1] * len(values_C) * torch.finfo(values_C.dtype).eps
    scale_C = torch.where(kept_C, values_C, 1).rsqrt() * kept_C
    return tokens_NC @ (vectors_CC * scale_C) @ vectors_CC.mT
