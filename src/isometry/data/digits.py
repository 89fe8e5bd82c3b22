"""The embedded data set: scikit-learn's 1,797 handwritten digits of 8×8 pixels (no download).

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Repository, 1998.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from isometry.data.splits import MapPart, shuffled_classes

TEST, VALIDATION, TRAIN = 500, 397, 900


@dataclass(frozen=True)
class Digits:
    """All digits, of mode L: ``pixels`` uint8 (1797,8,8), 0..16 scaled to 0..255; ``targets`` int (1797,)."""

    pixels: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def load(self, number: int) -> tuple[Image.Image, int]:
        """Image ``number`` of scikit-learn's set and its label."""
        return Image.fromarray(self.pixels[number]), int(self.targets[number])

    def where(self, number: int) -> str:
        """Describes where the image is."""
        return f"digit {number} of scikit-learn's load_digits"

    def labels(self) -> list[int]:
        """All targets."""
        return self.targets.tolist()


def open_digits() -> tuple[MapPart, MapPart, MapPart]:
    """Train (900), validation (397) and test (500): a fixed, stratified split."""
    from sklearn.datasets import load_digits  # takes a second to import, and only this data set needs it

    data = load_digits()
    digits = Digits(np.rint(data.images * (255 / 16)).astype(np.uint8), data.target)
    order = _stratified_order(digits.targets)
    bounds = np.cumsum([TRAIN, VALIDATION, TEST])
    train, validation, test = (np.sort(part).tolist() for part in np.split(order, bounds[:-1]))
    return MapPart(digits, train), MapPart(digits, validation), MapPart(digits, test)


def _stratified_order(targets: np.ndarray) -> np.ndarray:
    """A fixed order in which every class is spread evenly: image j of a class of n is at (j+½)/n."""
    classes = shuffled_classes(targets.tolist())
    places = np.concatenate([(np.arange(len(members)) + 0.5) / len(members) for members in classes])
    return np.concatenate(classes)[np.argsort(places, kind="stable")]
