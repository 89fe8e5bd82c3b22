"""Small, fast vision models that keep the geometry of a large one's feature space."""

from pathlib import Path
from typing import Any

__version__ = "0.1.0"

__all__ = ["load"]


def load(folder: str | Path) -> Any:
    """A saved network ready for inference (torch.nn.Module): see :func:`isometry.prune.folder.load`."""
    # Here, so that who needs the maths alone does not wait for timm.
    from isometry.prune.folder import load

    return load(folder)
