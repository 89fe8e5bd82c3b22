"""Two transformers small enough to run in a test."""

import timm
from torch import nn

VIT = {"patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
CAIT = {"patch_size": 8, "embed_dim": 72, "depth": 3, "num_heads": 3, "depth_token_only": 1}


def vit(**more: object) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **{**VIT, "img_size": 64, "num_classes": 10, **more})


def cait() -> nn.Module:
    return timm.create_model("cait_xxs24_224", **CAIT, img_size=64, num_classes=10)
