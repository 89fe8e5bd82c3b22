"""The embedded data set of dense tasks: scenes of several of scikit-learn's handwritten digits (no download).

Boxes and masks are known, since every scene is composed here, in less than a millisecond. A scene is a function of
(seed, index) alone, and the seed is fixed. The digits of a part of the scenes are those of the same part of the
digits (:mod:`isometry.data.digits`), so that no handwriting is trained and judged.

A scene of 96×96 grey pixels is ``(1 − α) · under + α · ink``, one digit over the other. The background is a plane of
grey with noise. α (0..1) is a digit of 8×8 pixels that is enlarged bicubically to 14 to 56 pixels, with its strokes
made steeper; its ink is lighter than the background, by an amount that varies. A pixel belongs to the last digit whose
α is at least ½: a later digit hides an earlier one. Where more than 15 % of an earlier digit would be hidden, the
later one is placed anew, or left out. Boxes are those of what is visible, as COCO's are.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from isometry.data.dense.annotations import Boxes, Task
from isometry.data.digits import Digits, open_digits
from isometry.data.splits import MapPart
from isometry.seeding import derive_seed

CANVAS = 96
SIDES = (14, 56)
"""Least and greatest side of an enlarged digit, drawn evenly on a logarithmic scale."""
FEWEST, MOST = 2, 6
"""Digits of a scene, before those that found no place are left out."""
ATTEMPTS = 8
"""Places that are tried for a digit."""
MOST_HIDDEN = 0.15
"""Share of a digit that later ones may hide, all together."""
TRAIN, VALIDATION, TEST = 2000, 300, 500

DIGIT_NAMES = [str(digit) for digit in range(10)]
BACKGROUND = 0
"""Class of the pixels of no digit, in masks; digit d has the class d + 1."""
MASK_NAMES = ["background", *DIGIT_NAMES]


@dataclass(frozen=True)
class Scene:
    """What a scene shows, before the background: M digits, the earlier below the later.

    ``digits`` int (M,) are classes; ``owner`` int8 (96,96) is the digit that a pixel belongs to, -1 for none;
    ``layers`` are the places (left, top) and the α float32 (side,side) of each digit.
    """

    digits: np.ndarray
    owner: np.ndarray
    layers: list[tuple[int, int, np.ndarray]]

    def visible(self) -> np.ndarray:
        """The visible pixels of each digit, int (M,)."""
        return np.bincount(self.owner[self.owner >= 0], minlength=len(self.digits))

    def boxes(self) -> Boxes:
        """The smallest boxes around what is visible of each digit.

        Areas are those of the boxes, so that by COCO's sizes there are small and medium ones.
        """
        return Boxes.of([_box_of(self.owner == number) for number in range(len(self.digits))], self.digits)

    def mask(self) -> np.ndarray:
        """The class of each pixel, uint8 (96,96): 0 for the background, d + 1 for digit d."""
        return np.append(self.digits + 1, BACKGROUND)[self.owner].astype(np.uint8)


@dataclass(frozen=True)
class DigitScenes(ABC):
    """``count`` scenes of the digits ``numbers`` of ``digits``; ``part`` is the name of the part.

    A scene that was loaded is kept, at most 20 kB each: composing it takes longer than augmenting it.
    """

    digits: Digits
    numbers: Sequence[int]
    part: str
    count: int
    seed: int = field(default=0)

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        """What scene ``index`` shows."""
        return self._composed(self._random(index))

    def picture(self, index: int) -> tuple[Image.Image, Scene]:
        """Scene ``index`` of mode L, and what it shows."""
        random = self._random(index)
        scene = self._composed(random)
        return Image.fromarray(_painted(scene, random)), scene

    def annotation_id(self, index: int) -> str:
        """Empty: a scene is always annotated alike."""
        return ""

    def load(self, index: int) -> tuple[Image.Image, Any]:
        """Scene ``index`` and its :meth:`truth`."""
        if index not in self._loaded:
            image, scene = self.picture(index)
            self._loaded[index] = image, self.truth(scene)
        image, truth = self._loaded[index]
        return image.copy(), truth

    @abstractmethod
    def truth(self, scene: Scene) -> Any:
        """What is to be learnt of a scene."""

    @cached_property
    def _loaded(self) -> dict[int, tuple[Image.Image, Any]]:
        return {}

    def where(self, index: int) -> str:
        """Describes where the scene is."""
        return f"scene {index} of the {self.part} part of digit-scenes"

    @cached_property
    def largest(self) -> list[int]:
        """The class of the digit with the largest visible area, of every scene; of equal ones the first."""
        scenes = (self.scene(index) for index in range(len(self)))
        return [int(scene.digits[scene.visible().argmax()]) for scene in scenes]

    def _random(self, index: int) -> np.random.RandomState:
        # RandomState, not Generator: NumPy promises that its stream never changes.
        return np.random.RandomState(derive_seed("digit-scenes", self.part, self.seed, index) % 2**32)

    def _composed(self, random: np.random.RandomState) -> Scene:
        owner = np.full((CANVAS, CANVAS), -1, np.int8)
        wanted = random.randint(FEWEST, MOST + 1)
        digits: list[int] = []
        layers: list[tuple[int, int, np.ndarray]] = []
        areas: list[int] = []
        for _ in range(wanted):
            number = self.numbers[random.randint(len(self.numbers))]
            alpha = _enlarged(self.digits.pixels[number], _drawn_side(random))
            solid, side = alpha >= 0.5, len(alpha)
            for left, top in random.randint(0, CANVAS - side + 1, (ATTEMPTS, 2)).tolist():
                window = owner[top : top + side, left : left + side]
                below = np.bincount(window[solid & (window >= 0)], minlength=len(areas))
                left_over = np.bincount(owner[owner >= 0], minlength=len(areas)) - below
                if (left_over >= (1 - MOST_HIDDEN) * np.array(areas)).all():
                    window[solid] = len(digits)
                    digits.append(int(self.digits.targets[number]))
                    areas.append(int(solid.sum()))
                    layers.append((left, top, alpha))
                    break
        return Scene(np.array(digits), owner, layers)


class SceneBoxes(DigitScenes):
    """Scenes with boxes around what is visible of each digit."""

    def truth(self, scene: Scene) -> Boxes:
        """The boxes of a scene."""
        return scene.boxes()

    def boxes(self, index: int) -> Boxes:
        """The boxes of scene ``index``."""
        return self.load(index)[1]


class SceneMasks(DigitScenes):
    """Scenes with the class of each pixel."""

    def truth(self, scene: Scene) -> np.ndarray:
        """The mask of a scene."""
        return scene.mask()

    def boxes(self, index: int) -> None:
        """There are none."""


class SceneLabels(DigitScenes):
    """Scenes labelled by the digit with the largest visible area."""

    def truth(self, scene: Scene) -> int:
        """The label of a scene."""
        return int(scene.digits[scene.visible().argmax()])

    def labels(self) -> list[int]:
        """The labels of all scenes."""
        return self.largest


def open_scenes(task: Task) -> tuple[list[SceneBoxes] | list[SceneMasks], list[str]]:
    """Train (2,000), validation (300) and test (500) scenes, and the names of the classes."""
    if task == "segment":
        return [SceneMasks(*part) for part in _parts()], MASK_NAMES
    return [SceneBoxes(*part) for part in _parts()], DIGIT_NAMES


def open_labelled_scenes() -> tuple[MapPart, MapPart, MapPart]:
    """Train, validation and test scenes, labelled by the digit with the largest visible area."""
    train, validation, test = (MapPart(SceneLabels(*part)) for part in _parts())
    return train, validation, test


def _parts() -> list[tuple[Digits, Sequence[int], str, int]]:
    parts = []
    counts = {"training": TRAIN, "validation": VALIDATION, "test": TEST}
    for part, (name, count) in zip(open_digits(), counts.items(), strict=True):
        assert isinstance(part.images, Digits)
        assert part.numbers is not None
        parts.append((part.images, part.numbers, name, count))
    return parts


def _drawn_side(random: np.random.RandomState) -> int:
    low, high = np.log(SIDES)
    return round(float(np.exp(random.uniform(low, high))))


def _enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    """α float32 (side,side) of a digit uint8 (8,8), ½ where the enlarged digit has the grey 0.4."""
    grey = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return ((grey / 255 - 0.4) / 0.4 + 0.5).clip(0, 1)


def _painted(scene: Scene, random: np.random.RandomState) -> np.ndarray:
    """The pixels uint8 (96,96) of a scene."""
    base, slope_x, slope_y = random.uniform((20, -40, -40), (90, 40, 40))
    along = np.linspace(-0.5, 0.5, CANVAS, dtype=np.float32)
    canvas = np.float32(base) + np.float32(slope_x) * along + np.float32(slope_y) * along[:, None]
    for left, top, alpha in scene.layers:
        under = canvas[top : top + len(alpha), left : left + len(alpha)]
        # In place: the part of the canvas below the digit.
        under += alpha * (np.float32(base + random.uniform(70, 150)) - under)
    canvas += 16 * (np.asarray(random.random_sample(canvas.shape), np.float32) - 0.5)
    return np.rint(canvas).clip(0, 255).astype(np.uint8)


def _box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
