"""Where an image lies in a network's input, so that boxes and masks can be moved there and predictions back."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

Answer = Any
"""Detections of an image, a dict of tensors with ``boxes``; or a tensor of masks."""
Rectangle = tuple[int, int, int, int]
"""Left, top, right and bottom, in whole pixels."""


@dataclass(frozen=True)
class Placement:
    """The part ``source`` of an image of ``size`` (width, height) fills ``target`` of an input of ``input_size``.

    Along each axis, a place x of the image is at ``t₀ + (x − s₀) · (t₁ − t₀) / (s₁ − s₀)`` of the input, for the source
    s₀..s₁ and the target t₀..t₁, and after a flip at the input's width less that. What lies outside ``target`` is
    padding.
    """

    size: tuple[int, int]
    source: Rectangle
    target: Rectangle
    input_size: tuple[int, int]
    hflip: bool = False
    vflip: bool = False

    @classmethod
    def fitted(cls, size: tuple[int, int], input_size: tuple[int, int]) -> Self:
        """The whole image, as large as fits, in the middle; no shape is distorted by more than the rounding."""
        share = min(input_size[axis] / size[axis] for axis in range(2))
        sides = [max(1, min(input_size[axis], round(size[axis] * share))) for axis in range(2)]
        left, top = ((input_size[axis] - sides[axis]) // 2 for axis in range(2))
        return cls(size, (0, 0, *size), (left, top, left + sides[0], top + sides[1]), input_size)

    @classmethod
    def of_window(
        cls, size: tuple[int, int], window: tuple[float, float, float, float], input_size: tuple[int, int]
    ) -> Self:
        """A window (left, top, right, bottom) of the image's plane fills the input; it may reach beyond the image.

        The part of the image in it is rounded to whole pixels, of at least one.
        """
        source, target = [0] * 4, [0] * 4
        for axis in range(2):
            start, end = window[axis], window[2 + axis]
            first = min(max(0, round(start)), size[axis] - 1)
            last = max(min(size[axis], round(end)), first + 1)
            scale = input_size[axis] / (end - start)
            begin = min(max(0, round((first - start) * scale)), input_size[axis] - 1)
            stop = max(min(input_size[axis], round((last - start) * scale)), begin + 1)
            source[axis], source[2 + axis], target[axis], target[2 + axis] = first, last, begin, stop
        return cls(size, (*source,), (*target,), input_size)  # type: ignore[arg-type]

    def to_input(self, xyxy_M4: np.ndarray) -> np.ndarray:
        """Boxes of the image, float32 (M,4), in pixels of the input, clipped to it."""
        scale, shift = self._map()
        moved = xyxy_M4.astype(np.float32) * scale + shift
        left, top, right, bottom = self.target
        moved = np.clip(moved, (left, top) * 2, (right, bottom) * 2)
        return self._flipped(moved).astype(np.float32)

    def to_image(self, xyxy_M4: torch.Tensor) -> torch.Tensor:
        """Boxes of the input, float (M,4), in pixels of the whole image, clipped to it."""
        boxes = torch.from_numpy(self._flipped(xyxy_M4.detach().cpu().double().numpy()))
        scale, shift = map(torch.from_numpy, self._map())
        width, height = self.size
        bounds = torch.tensor([width, height, width, height])
        moved = ((boxes - shift) / scale).clamp(min=0).minimum(bounds)
        return moved.to(xyxy_M4)

    def map_to_image(self, values_KHW: torch.Tensor) -> torch.Tensor:
        """Maps of the input, float (K,H,W), such as logits, at the whole image's size (K,height,width), bilinearly.

        The padding is cut off. Of a placement that shows the whole image, as in evaluation; H, W are the input's.
        """
        left, top, right, bottom = self.target
        axes = [axis for axis, flip in ((-1, self.hflip), (-2, self.vflip)) if flip]
        values = values_KHW.flip(axes) if axes else values_KHW
        width, height = self.size
        inner = values[None, :, top:bottom, left:right]
        return torch.nn.functional.interpolate(inner, size=(height, width), mode="bilinear")[0]

    def classes_to_image(self, logits_KHW: torch.Tensor) -> torch.Tensor:
        """The most probable class of each pixel of the whole image, int64 (height, width), of :meth:`map_to_image`."""
        best_HW = classes_HW = None
        # One class after another: of a large image the logits of all classes would take gigabytes.
        for number, logits_HW in enumerate(logits_KHW):
            values_HW = self.map_to_image(logits_HW[None])[0]
            if best_HW is None or classes_HW is None:
                best_HW, classes_HW = values_HW, torch.zeros_like(values_HW, dtype=torch.int64)
                continue
            larger_HW = values_HW > best_HW
            best_HW = torch.where(larger_HW, values_HW, best_HW)
            classes_HW[larger_HW] = number
        assert classes_HW is not None
        return classes_HW

    def answer_to_image(self, answer: Answer) -> Answer:
        """What a network answers to its input, in pixels of the whole image.

        Args:
            answer: detections, of which ``boxes`` (M,4) are moved; or logits (K,H,W), which become
                :meth:`classes_to_image`.
        """
        if isinstance(answer, torch.Tensor):
            return self.classes_to_image(answer.float())
        return {**answer, "boxes": self.to_image(answer["boxes"])}

    def _map(self) -> tuple[np.ndarray, np.ndarray]:
        """Factor and summand (4,) from the image to the input, before flips."""
        scale, shift = np.empty(4), np.empty(4)
        for axis in range(2):
            factor = (self.target[2 + axis] - self.target[axis]) / (self.source[2 + axis] - self.source[axis])
            scale[axis::2] = factor
            shift[axis::2] = self.target[axis] - self.source[axis] * factor
        return scale, shift

    def _flipped(self, xyxy: np.ndarray) -> np.ndarray:
        xyxy = xyxy.copy()
        for axis, flip in enumerate((self.hflip, self.vflip)):
            if flip:
                xyxy[:, [axis, 2 + axis]] = self.input_size[axis] - xyxy[:, [2 + axis, axis]]
        return xyxy
