"""Small, fast vision models that keep the geometry of a large one's feature space."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isometry.training.objective import Objective

__version__ = "0.1.0"

__all__ = ["Objective", "load"]


def load(folder: str | Path) -> Any:
    """A saved network ready for inference (torch.nn.Module), in eval mode on the CPU.

    Images are float32 (B, C, H, W), normalised: values in 0..1, less a mean, divided by a standard deviation.

    - A classifier gives logits (B, K): see :func:`isometry.prune.saving.load`.
    - A detector gives a list, a dict for each image, by falling score: ``boxes`` float32 (M, 4), x1, y1, x2, y2 in
      pixels of the input; ``scores`` float32 (M,) of at least 0.05; ``labels`` int64 (M,), from 0. Of two boxes of a
      class that overlap by more than 0.6 (IoU) one is left out (non-maximum suppression), and at most 100 are kept.
    - A segmentation network gives logits (B, K, H, W).

    The latter two take images of one size, ``network.spec.input_size`` (C, H, W), with the mean and the standard
    deviation ``network.spec.mean`` and ``.std``; ``network.class_names`` has the names of labels. Their ``predict``
    takes a picture of any size, and answers in its pixels::

        network = isometry.load("runs/detector")
        found = network.predict("picture.jpg")  # boxes, scores, labels
        names = [network.class_names[label] for label in found["labels"]]

    Args:
        folder: of a run, or of a network.

    Raises:
        UserError: no such folder, or no network in it that can be loaded.
    """
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
