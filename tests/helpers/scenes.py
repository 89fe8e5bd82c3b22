"""Tiny runs for boxes and masks: 40 scenes of digits, a ViT of two blocks."""

from isometry.data.dense import digit_scenes

FEW = {"TRAIN": 40, "VALIDATION": 12, "TEST": 12}
"""Scenes of each part, instead of thousands."""

NETWORK = [
    *("vit_tiny_patch16_224", "--random-weights", "--img-size", "96"),
    *("--model-kwargs", "patch_size=16", "embed_dim=24", "depth=2", "num_heads=2", "in_chans=1"),
    *("--batch-size", "10", "--epochs", "2", "--workers", "0", "--device", "cpu"),
]
TINY = [*NETWORK, "--dataset", "digit-scenes"]
"""Four steps an epoch; with ``transfer`` before it, and a task and a folder after it, a command line."""


def few_scenes() -> None:
    """For ``prepare``: few scenes in this process."""
    for name, count in FEW.items():
        setattr(digit_scenes, name, count)
