"""Costs of the networks of a run that grows."""

import pytest
from timm.models.vision_transformer import Block

from helpers.runs import plan_of
from isometry.config import GrowConfig, RunConfig
from isometry.models.cost import macs, parameter_count

VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "depth": 4}
SIZE = (3, 16, 16)


class LooksAtValues(Block):
    """A block that can't be traced on shapes."""

    def forward(self, x):
        assert x.isfinite().all()
        return super().forward(x)


@pytest.mark.parametrize("block", [Block, LooksAtValues])
def test_stages_cost_what_their_networks_cost(block):
    config = RunConfig(
        model="vit_tiny_patch16_224",
        model_kwargs={**VIT, "block_fn": block},
        num_classes=5,
        epochs=4,
        grow=GrowConfig(depth="2,4", width="12,24"),
    )
    plan = plan_of(config)
    students = [plan.build(stage)[0] for stage in plan.schedule.stages]
    rows = plan.costs(SIZE)
    assert [(row["model"], row["by"]) for row in rows] == [
        ("depth 2, width 12", ""),
        ("depth 4, width 24", "insert + duplicate"),
    ]
    assert [row["params"] for row in rows] == [parameter_count(student) for student in students]
    assert [row["macs"] for row in rows] == [macs(student, SIZE) for student in students]
