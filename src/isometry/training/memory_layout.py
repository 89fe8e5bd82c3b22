"""``--channels-last``: convolutions with each pixel's channels side by side in memory (NHWC).

Weights decide: torch computes a convolution in this layout where its weights or its images have it, and hands the
layout on to the next layer.
"""

import torch
from torch import nn

from isometry.errors import UserError, first_line
from isometry.models.sharding import is_sharded
from isometry.training.objective import Objective


def set_memory_format(objective: Objective, memory_format: torch.memory_format) -> None:
    """Lays out the weights of the student, and of a teacher that is not sharded.

    Raises:
        UserError: an architecture has weights that can't be laid out so.
    """
    networks = [objective.trainable_module]
    if objective.teacher is not None and not is_sharded(objective.teacher.model):
        networks.append(objective.teacher.model)
    for network in networks:
        lay_out(network, memory_format)


def lay_out(network: nn.Module, memory_format: torch.memory_format) -> None:
    """Lays out the weights of a network.

    Raises:
        UserError: it has weights that can't be laid out so.
    """
    try:
        network.to(memory_format=memory_format)
    except RuntimeError as error:
        raise UserError(f"--channels-last: not possible here ({first_line(error)}); leave it out") from error
