"""Architectures that can grow, one a file; the file has the name of timm's module."""

from isometry.grow.architectures.base import (
    Architecture,
    Numbers,
    Size,
    available,
    find_architecture,
    format_size,
)

__all__ = ["Architecture", "Numbers", "Size", "available", "find_architecture", "format_size"]
