"""Small, fast vision models that keep the geometry of a large one's feature space."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isometry.training.objective import Objective

__version__ = "0.1.0"

__all__ = ["Objective", "load"]


def load(folder: str | Path) -> Any:
    """A saved network ready for inference (torch.nn.Module): see :func:`isometry.prune.saving.load`, and for detectors
    and segmentation networks :func:`isometry.models.dense.saving.load_dense`."""
    # Imported here, so that `isometry.functional` does not wait for timm.
    from isometry.models.dense.saving import dense_folder, load_dense
    from isometry.prune.saving import load

    return load(folder) if dense_folder(folder) is None else load_dense(folder)


def __getattr__(name: str) -> Any:
    if name != "Objective":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported here for the same reason.
    from isometry.training.objective import Objective

    return Objective
