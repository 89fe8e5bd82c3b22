"""The embedded data set: 1,797 real handwritten digits of 8×8 pixels that scikit-learn carries (no download).

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
        """The digit ``number`` of scikit-learn's set, and which digit it is."""
        return Image.fromarray(self.pixels[number]), int(self.targets[number])

    def where(self, number: int) -> str:
        """Words that find the image."""
        return f"digit {number} of scikit-learn's load_digits"


def open_digits() -> tuple[MapPart, MapPart, MapPart]:
    """Train (900), validation (397) and test (500): a fixed split, each with its share of every digit."""
    from sklearn.datasets import load_digits  # takes a second to import, and only this data set needs it

    data = load_digits()
    digits = Digits(np.rint(data.images * (255 / 16)).astype(np.uint8), data.target)
    order = _stratified_order(digits.targets)
    bounds = np.cumsum([TRAIN, VALIDATION, TEST])
    train, validation, test = (np.sort(part).tolist() for part in np.split(order, bounds[:-1]))
    return MapPart(digits, train), MapPart(digits, validation), MapPart(digits, test)


def _stratified_order(targets: np.ndarray) -> np.ndarray:
    """A fixed order with all classes in proportion everywhere: image j of a class of n is at (j+½)/n."""
    classes = shuffled_classes(targets.tolist())
    places = np.concatenate([(np.arange(len(members)) + 0.5) / len(members) for members in classes])
    return np.concatenate(classes)[np.argsort(places, kind="stable")]
