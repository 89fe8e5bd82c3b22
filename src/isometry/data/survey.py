"""A look at a sample of a run's images: how many are turned by EXIF, and the greys of those of more than 8 bits."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from isometry.config import DataConfig
from isometry.data.decoding import DecodeError, decode_errors
from isometry.data.image_files import ImageFiles
from isometry.data.image_formats import open_picture, read_bytes
from isometry.data.image_modes import is_deep, white_of
from isometry.data.option_checks import AUTO
from isometry.data.orientation import turn_of
from isometry.data.splits import MapPart, Part
from isometry.errors import UserError

SAMPLE = 100
"""Most images that are looked at."""

DARK = 0.5
"""Share of a range below which a sample probably has another black or white, since it spans no more of it."""

PNG_METADATA = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""What a PNG that names an orientation has somewhere: its EXIF, the same as text, or XMP."""

FLOAT_TOPS = (255, 65535)
"""White of 8 and of 16 bits, which programs keep when they write integers as floats."""

TRIMMED = 0.002
"""Share of the pixels at each end of a sample that is left out of its range: hot pixels, burnt-in marks."""

PIXELS = 2**16
"""Most pixels of an image that its range is taken from."""

FEWEST = 5
"""Images from which on their own range is advised; the contrast of fewer says little about all others."""

TYPES = {65535.0: "of 16 bits", 1.0: "of floats"}
"""Deep grey images by their white."""


@dataclass(frozen=True)
class DeepGreys:
    """Sampled grey images of one type of more than 8 bits: their number, and their values.

    ``low`` and ``high`` are those without the :data:`TRIMMED` lowest and highest pixels, or the ``least`` and
    ``greatest`` where all others are equal.
    """

    images: int
    low: float
    high: float
    least: float
    greatest: float

    @classmethod
    def of(cls, images: list[np.ndarray]) -> "DeepGreys":
        """Of finite values of each image, (n,)."""
        values = np.sort(np.concatenate(images))
        ends = least, greatest = float(values[0]), float(values[-1])
        trimmed = int(TRIMMED * values.size)
        low, high = float(values[trimmed]), float(values[-1 - trimmed])
        return cls(len(images), *((low, high) if low < high else ends), least, greatest)

    @property
    def spread(self) -> float:
        """From ``low`` to ``high``."""
        return self.high - self.low

    @property
    def reach(self) -> str:
        """How far the pixels go that are left out; empty where none are."""
        if (self.low, self.high) == (self.least, self.greatest):
            return ""
        return (
            f" (without the {100 * TRIMMED:g} % lowest and highest pixels, which reach {self.least:g} and "
            f"{self.greatest:g})"
        )


@dataclass(frozen=True)
class Survey:
    """What was found in ``looked`` of ``total`` images, taken at equal distances.

    ``greys`` are by the type's white; ``broken`` counts images with pixels that are NaN or infinite; ``size`` is the
    median (width, height) as stored, by the longer side.
    """

    total: int
    looked: int = 0
    turned: int = 0
    unreadable: int = 0
    broken: int = 0
    greys: Mapping[float, DeepGreys] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)

    def resolved(self, pixel_range: str | None) -> str | None:
        """``--pixel-range`` with the range of the sample for ``auto``; None where that has no deep greys.

        Raises:
            UserError: the sample has no range.
        """
        if pixel_range != AUTO:
            return pixel_range
        if not self.looked:
            raise UserError("--pixel-range auto: a stream is read in order only; give LOW,HIGH")
        if len(self.greys) > 1:
            kinds = " and ".join(TYPES[white] for white in self.greys)
            raise UserError(f"--pixel-range auto: there are grey images {kinds}; give LOW,HIGH")
        for found in self.greys.values():
            if found.low == found.high:
                raise UserError(f"--pixel-range auto: all sampled pixels are {found.low:g}; give LOW,HIGH")
            return f"{found.low:.9g},{found.high:.9g}"
        return None

    def notes(self, pixel_range: str | None) -> list[str]:
        """What ``auto`` found; greys that can't be used or come out nearly black or flat; pixels that are no numbers.

        Raises:
            UserError: as :meth:`resolved`.
        """
        said = []
        if pixel_range == AUTO:
            found_range = self.resolved(AUTO) or "no grey images of more than 8 bits"
            reach = "".join(found.reach for found in self.greys.values())
            said.append(
                f"--pixel-range auto: {found_range}, in a sample of {self.looked} training images{reach}"
            )
        for white, found in self.greys.items() if pixel_range is None else ():
            suggested, of_bits = _suggested(found, white)
            advice = f"give the values of black and white, such as --pixel-range {suggested}, or --pixel-range auto"
            if found.least < 0 or found.greatest > white:
                # Integers beyond 16 bits are read with the same white.
                kind = "floats" if white == 1 else "integers"
                said.append(
                    f"grey images of {kind} can't be used: values of a sample of {found.images} are "
                    f"{found.least:g} to {found.greatest:g}, and not all in 0 to {white:g}; {advice}"
                )
            elif 0 < found.spread < DARK * white and (
                suggested != f"0,{white:g}" if of_bits else found.images >= FEWEST
            ):
                share = 100 * found.spread / white
                said.append(
                    f"grey images {TYPES[white]} come out dark or flat: values of a sample of {found.images} are "
                    f"{found.low:g} to {found.high:g}, {share:.2g} % of 0 to {white:g}{found.reach}; {advice}"
                )
        if self.broken:
            said.append(
                f"{self.broken} of {self.looked} sampled images have pixels that are NaN or infinite, and can't be "
                "used; --skip-bad-images takes others in their place"
            )
        return said

    def described(self, config: DataConfig) -> str:
        """What was found, in one line."""
        if not self.looked:
            return "not looked at: a stream is read in order only"
        seen = "all" if self.looked == self.total else f"a sample of {self.looked:,} of the"
        parts = [f"{seen} {self.total:,} training images: {self.turned or 'none'} turned by EXIF"]
        if self.turned:
            parts[0] += f", {exif_text(config.exif)}"
        if self.unreadable:
            parts.append(f"{self.unreadable} can't be read")
        for white, found in self.greys.items():
            text = f"{found.images} grey {TYPES[white]}, values {found.low:g} to {found.high:g}{found.reach}"
            parts.append(f"{text} (black and white: {config.pixel_range or f'0,{white:g}'})")
        return "; ".join(parts)


def exif_text(exif: str) -> str:
    """How photographs with an EXIF orientation are seen, by the option of this name."""
    return "seen upright" if exif == "upright" else "seen as they are stored (--exif ignore)"


def survey(part: Part, *, looks: bool = True) -> Survey:
    """Looks at up to :data:`SAMPLE` images of a part, always the same; at none of a stream, or without ``looks``.

    Of files, the pixels of deep greys alone are decoded; of other images, the header is read.
    """
    if not (isinstance(part, MapPart) and looks):
        return Survey(len(part))
    looked = min(len(part), SAMPLE)
    turned = unreadable = broken = 0
    greys: dict[float, list[np.ndarray]] = defaultdict(list)
    sizes: list[tuple[int, int]] = []
    for number in range(looked):
        try:
            with decode_errors():
                image, is_turned = _opened(part, number * len(part) // looked)
                turned += is_turned
                sizes.append(image.size)
                if not is_deep(image):
                    continue
                values = np.asarray(image)
        except DecodeError:
            unreadable += 1
            continue
        finite = values[np.isfinite(values)]
        broken += finite.size < values.size
        if finite.size:
            greys[white_of(image)].append(_some_of(finite))
    found = {white: DeepGreys.of(images) for white, images in greys.items()}
    size = sorted(sizes, key=max)[len(sizes) // 2] if sizes else (0, 0)
    return Survey(len(part), looked, turned, unreadable, broken, found, size)


def _some_of(values: np.ndarray) -> np.ndarray:
    """At most about :data:`PIXELS` of an image's values, always the same, with the least and the greatest."""
    if values.size <= PIXELS:
        return values
    drawn = values[np.random.default_rng(0).integers(values.size, size=PIXELS)]
    return np.append(drawn, [values.min(), values.max()])


def _opened(part: MapPart, index: int) -> tuple[Image.Image, bool]:
    """An image, of a file not decoded yet, and whether training turns it by its EXIF orientation."""
    if not isinstance(part.images, ImageFiles):
        image, _ = part.load(index)
        return image, turn_of(image) is not None
    number = index if part.numbers is None else int(part.numbers[index])
    content = read_bytes(part.images.files[number][0])
    image = open_picture(content)
    if image.format == "TIFF":
        # Pillow turns it as it decodes it, whatever --exif says.
        return image, False
    # Pillow looks for the orientation of a PNG behind its pixels too, and decodes them for it.
    says = image.format != "PNG" or any(key in content.getvalue() for key in PNG_METADATA)
    return image, says and turn_of(image) is not None


def _suggested(found: DeepGreys, white: float) -> tuple[str, bool]:
    """The range of the fewest bits that hold the values, where they begin near 0, and True; else that of the sample."""
    tops = FLOAT_TOPS if white == 1 else [2 ** int(found.high).bit_length() - 1]
    top = next((top for top in tops if DARK * top < found.high <= top), None)
    if top is None or found.low < 0 or found.low > found.spread:
        return f"{found.low:.9g},{found.high:.9g}", False
    return f"0,{top}", True
