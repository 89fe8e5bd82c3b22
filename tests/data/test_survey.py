"""A look at a sample: turned photographs are counted, and greys that would come out nearly black are told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from helpers.image_files import folder_config, write_classes
from helpers.messages import mentions
from isometry.data import find_sources
from isometry.data.image_formats import read_bytes
from isometry.data.splits import StreamPart
from isometry.data.survey import SAMPLE, Survey, survey
from isometry.errors import UserError


def look(root: Path) -> Survey:
    return survey(find_sources(folder_config(root, val_fraction=0.1)).train)


def turn(path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(path).copy().save(path, exif=exif)


def deep(root: Path, values: np.ndarray, images: int = 4, darker: float = 0.1) -> Path:
    """Two classes of images of these values, scaled down a little more from one to the next."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            scaled = (values * (1 - darker * number)).astype(values.dtype)
            Image.fromarray(scaled).save(root / name / f"{number}{values.dtype}.tif")
    return root


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def test_turned_and_unreadable_images_are_counted(tmp_path: Path):
    root = write_classes(tmp_path, {"a": 6, "b": 6}, ".jpg")
    for name in ("a", "b"):
        for number in range(3):
            turn(root / name / f"{number}.jpg")
    for number in range(3, 6):
        (root / "a" / f"{number}.jpg").write_bytes(b"no image")
    found = survey(find_sources(folder_config(root, val_fraction=0.1)).train)
    train = {
        path
        for part in (find_sources(folder_config(root, val_fraction=0.1)).train,)
        for path in map(part.where, range(len(part)))
    }
    assert found.looked == found.total == len(train) == 10
    assert found.turned == sum(Path(path).stem in "012" for path in train)
    assert found.unreadable == sum(
        Path(path).stem in "345" and Path(path).parent.name == "a" for path in train
    )
    text = found.described(folder_config(root))
    assert mentions(
        text,
        f"all 10 training images: {found.turned} turned by EXIF, seen upright; {found.unreadable} can't be read",
    )
    assert "as they are stored (--exif ignore)" in found.described(folder_config(root, exif="ignore"))


def test_a_sample_is_bounded_spread_and_called_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_classes(tmp_path, {"a": 120, "b": 120})
    part = find_sources(folder_config(root, val_fraction=0.1)).train
    seen = []
    order = {part.where(index): part.numbers[index] for index in range(len(part))}
    monkeypatch.setattr(
        "isometry.data.survey.read_bytes", lambda path: (seen.append(order[path]), read_bytes(path))[1]
    )
    found = survey(part)
    assert (found.looked, found.total) == (SAMPLE, 216)
    assert len(set(seen)) == SAMPLE
    assert min(seen) < 10
    assert max(seen) > 230
    assert "a sample of 100 of the 216 training images: none turned" in found.described(folder_config(root))


@pytest.mark.parametrize(
    ("values", "high", "share", "suggested"),
    [
        ((RAMP * 4071).astype(np.uint16), 4071, "6.2 %", "0,4095"),
        ((RAMP * 1000).astype(np.uint16), 1000, "1.5 %", "0,1023"),
        ((RAMP * 16383).astype(np.int32), 16383, "25 %", "0,16383"),
        ((RAMP / 8).astype(np.float32), 0.125, "12 %", "0,0.125"),
    ],
)
def test_greys_that_come_out_dark_are_told_with_the_range_that_mends_them(
    tmp_path: Path, values: np.ndarray, high: float, share: str, suggested: str
):
    found = look(deep(tmp_path, values))
    (greys,) = found.greys.values()
    assert (greys.images, greys.low, greys.high) == (found.looked, 0, high)
    (warning,) = found.notes(None)
    assert mentions(warning, f"are 0 to {high:g}, {share} of 0 to … --pixel-range {suggested},")
    assert f"values 0 to {high:g}" in found.described(folder_config(tmp_path))
    assert found.notes(suggested) == []
    assert found.resolved("auto") == f"0,{high:g}"
    assert found.notes("auto") == [
        f"--pixel-range auto: 0,{high:g}, in a sample of {found.looked} training images"
    ]
    assert found.resolved("3,4") == "3,4"
    assert found.resolved(None) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            (RAMP * 4095).astype(np.int32) - 1024,
            "of integers can't be used … are -1024 to 3071 … --pixel-range -1024,3071,",
        ),
        (
            (RAMP * 100_000).astype(np.int32),
            "are 0 to 100000 … not all in 0 to 65535 … --pixel-range 0,131071,",
        ),
        (
            (RAMP * 255).astype(np.float32),
            "floats can't be used … are 0 to 255 … not all in 0 to 1; … --pixel-range 0,255,",
        ),
    ],
)
def test_greys_that_can_not_be_used_are_told_before_the_run_meets_them(
    tmp_path: Path, values: np.ndarray, said: str
):
    found = look(deep(tmp_path, values, images=1))
    (warning,) = found.notes(None)
    assert mentions(warning, said)
    assert found.notes("0,1") == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (RAMP * 1499 + 33000, "are 33000 to 34499, 2.3 % of 0 to 65535; … --pixel-range 33000,34499,"),
        (RAMP * 1999 + 29000, "are 29000 to 30999, 3.1 % of 0 to 65535; … --pixel-range 29000,30999,"),
        (RAMP * 3000 + 1000, "are 1000 to 4000, 4.6 % of 0 to 65535; … --pixel-range 0,4095,"),
    ],
)
def test_greys_far_above_black_are_told_by_their_spread(tmp_path: Path, values: np.ndarray, said: str):
    found = look(deep(tmp_path, values.astype(np.uint16), darker=0))
    (warning,) = found.notes(None)
    assert mentions(warning, said)


def test_the_range_of_two_images_alone_is_not_advised(tmp_path: Path):
    """Of bits it is: two images of 12 bits in a type of 16 are as dark as a hundred."""
    flat = look(deep(tmp_path / "flat", (RAMP * 15000 + 22000).astype(np.uint16), images=1))
    assert flat.greys[65535].images == 2
    assert flat.notes(None) == []
    dark = look(deep(tmp_path / "dark", (RAMP * 4071).astype(np.uint16), images=1))
    assert mentions(*dark.notes(None), "such as --pixel-range 0,4095, or")


def test_the_range_that_is_the_default_is_not_advised(tmp_path: Path):
    found = look(deep(tmp_path, (RAMP * 30000 + 20000).astype(np.uint16), darker=0))
    assert found.greys[65535].spread == 30000  # less than half of the range, and not far above black
    assert found.notes(None) == []


@pytest.mark.parametrize(
    ("low", "high", "suggested"),
    [(0, 254.5, "0,255"), (1, 60000, "0,65535"), (0, 255.5, "0,255.5"), (200, 250, "200,250"), (0, 4, "0,4")],
)
def test_the_range_of_floats_is_that_of_the_integers_they_were(
    tmp_path: Path, low: float, high: float, suggested: str
):
    found = look(deep(tmp_path, (RAMP * (high - low) + low).astype(np.float32), images=1))
    (warning,) = found.notes(None)
    assert f"such as --pixel-range {suggested}, or" in warning


def hot(root: Path, size: int, pixels: int = 1) -> Path:
    """Images of 12 bits with a few pixels of 65535, and as many of 0."""
    values = np.linspace(100, 4071, size * size).astype(np.uint16)
    values[:pixels], values[-pixels:] = 0, 65535
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(values.reshape(size, size)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize("size", [24, 400])
def test_a_few_hot_pixels_do_not_hide_that_all_others_are_dark(tmp_path: Path, size: int):
    found = look(hot(tmp_path, size, pixels=1 if size == 24 else 100))
    (greys,) = found.greys.values()
    assert (greys.least, greys.greatest) == (0, 65535)
    # 0.2 % of the ramp's values lie outside at each end, hot ones among them
    assert 100 <= greys.low < 120
    assert 4050 < greys.high <= 4071
    (warning,) = found.notes(None)
    assert mentions(
        warning,
        "come out dark or flat … % of 0 to 65535 (without the 0.2 % lowest and highest pixels, "
        "which reach 0 and 65535)",
    )
    assert mentions(warning, "such as --pixel-range 0,4095, or")
    assert found.resolved("auto") == f"{greys.low:g},{greys.high:g}"
    assert mentions(
        *found.notes("auto"), f"auto: {greys.low:g},{greys.high:g}, in a sample of … reach 0 and 65535"
    )


def test_a_range_is_that_of_the_sorted_pixels(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 65536, (8, 40, 50)).astype(np.uint16)
    for number, image in enumerate(values):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "ab"[number % 2] / f"{number}.png")
    part = find_sources(folder_config(tmp_path, val_fraction=0.1)).train
    pixels = sorted(
        int(pixel) for index in range(len(part)) for pixel in np.asarray(part.load(index)[0]).ravel()
    )
    (greys,) = survey(part).greys.values()
    cut = int(0.002 * len(pixels))
    assert cut == 24
    assert (greys.low, greys.high) == (pixels[cut], pixels[-cut - 1])
    assert (greys.least, greys.greatest) == (pixels[0], pixels[-1])


def test_one_value_that_makes_an_image_unreadable_is_told(tmp_path: Path):
    values = np.linspace(0, 60000, 10_000).astype(np.int32).reshape(100, 100)
    values[0, 0] = -1
    (warning,) = look(deep(tmp_path, values, images=1)).notes(None)
    assert mentions(warning, "can't be used … are -1 to 60000, and not all in 0 to 65535")


def test_a_sparse_image_has_the_range_of_all_its_pixels(tmp_path: Path):
    values = np.zeros((100, 100), dtype=np.uint16)
    values[0, :5] = 4071
    assert look(deep(tmp_path, values, images=1)).resolved("auto") == "0,4071"


def test_greys_of_one_value_have_no_range_to_advise(tmp_path: Path):
    assert look(deep(tmp_path, np.full((8, 8), 33000, np.uint16), images=1)).notes(None) == []


def test_greys_that_use_their_type_need_no_word(tmp_path: Path):
    found = look(deep(tmp_path, (RAMP * 65535).astype(np.uint16)))
    assert found.notes(None) == []


def test_images_with_nan_are_counted_and_leave_the_range_alone(tmp_path: Path):
    values = RAMP.astype(np.float32)
    values[3, 3] = np.nan
    found = look(deep(tmp_path, values))
    (warning,) = found.notes(None)
    assert mentions(warning, f"{found.looked} of {found.looked} … NaN … --skip-bad-images")
    assert found.resolved("auto") == "0,1"


def test_auto_is_refused_where_a_sample_has_no_single_range(tmp_path: Path):
    deep(tmp_path / "two", RAMP.astype(np.float32))
    with pytest.raises(UserError, match=r"of floats and of 16 bits|of 16 bits and of floats"):
        look(deep(tmp_path / "two", (RAMP * 4095).astype(np.uint16))).resolved("auto")
    with pytest.raises(UserError, match="all sampled pixels are 0; give LOW,HIGH"):
        look(deep(tmp_path / "flat", np.zeros((8, 8), dtype=np.uint16))).resolved("auto")
    with pytest.raises(UserError, match="a stream"):
        survey(StreamPart(lambda **_: None, 7)).resolved("auto")
    eight = look(write_classes(tmp_path / "eight", {"a": 4, "b": 4}))
    assert eight.resolved("auto") is None
    assert mentions(*eight.notes("auto"), "auto: no grey images of more than 8 bits, in a sample of 6")


def test_only_the_pixels_of_deep_greys_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = deep(write_classes(tmp_path, {"a": 5, "b": 5}), (4095 * RAMP).astype(np.uint16))
    for number in range(3):
        turn(root / "a" / f"{number}.png")
    decoded: list[str] = []
    load = ImageFile.load

    def counted(image: ImageFile) -> object:
        if image.tile:
            decoded.append(image.mode)
        return load(image)

    part = find_sources(folder_config(root, val_fraction=0.1)).train
    names = [Path(part.where(index)) for index in range(len(part))]
    turned = sum(path.parent.name == "a" and path.name in ("0.png", "1.png", "2.png") for path in names)
    greys = sum(path.suffix == ".tif" for path in names)
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile, "load", counted)
        found = survey(part)
    assert set(decoded) == {"I;16"}
    assert len(decoded) == greys == found.greys[65535.0].images > 0
    assert (found.looked, found.turned, found.unreadable) == (len(part), turned, 0)
    assert turned > 0


def test_an_orientation_behind_the_pixels_of_a_png_is_found(tmp_path: Path):
    root = write_classes(tmp_path, {"a": 5, "b": 5})
    for path in sorted(root.rglob("*.png")):
        turn(path)
        content = path.read_bytes()
        start = content.index(b"eXIf") - 4
        length = 12 + int.from_bytes(content[start : start + 4])
        chunk = content[start : start + length]
        rest = content[:start] + content[start + length :]
        end = rest.index(b"IEND") - 4
        path.write_bytes(rest[:end] + chunk + rest[end:])
    found = look(root)
    assert found.turned == found.looked > 0


def test_a_process_that_does_not_look_opens_nothing(tmp_path: Path):
    part = find_sources(folder_config(write_classes(tmp_path, {"a": 5, "b": 5}), val_fraction=0.1)).train
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert survey(part, looks=False) == Survey(len(part))
