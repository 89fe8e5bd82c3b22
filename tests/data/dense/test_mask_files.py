"""Pictures with masks: the layouts that people have, and what is found before training."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.dense_files import quarter_mask, write_mask, write_masks, write_picture
from helpers.pages import ROOT, code_blocks
from isometry.config import DataConfig
from isometry.data import ImageSpec
from isometry.data.decoding import DecodeError, Reading, read_pixels
from isometry.data.dense.batches import dense_loaders
from isometry.data.dense.mask_reading import values_in
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.errors import UserError

SPEC = ImageSpec((3, 32, 32), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def opened(root: Path, **options: object) -> DenseSources:
    return find_dense_sources(DataConfig(data_dir=str(root), workers=0, **options), "segment")


def unnamed(values: str) -> str:
    """The note where there is no classes.txt."""
    return f"no classes.txt: the classes are named by the values that occur, {values}"


def move(root: Path, places: dict[str, str]) -> None:
    for old, new in places.items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)


LAYOUTS = {
    "splits inside": {},
    "splits outside": {
        f"{kind}/{split}": f"{split}/{kind}" for kind in ("images", "masks") for split in ("train", "val")
    },
    "other names": {
        f"{kind}/{split}": f"{other}/{name}"
        for kind, other in (("images", "images"), ("masks", "annotations"))
        for split, name in (("train", "training"), ("val", "validation"))
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_found(tmp_path, layout):
    root = write_masks(tmp_path / "written")
    move(root, LAYOUTS[layout])
    for folder in ("images", "masks"):
        if (root / folder).is_dir() and not any((root / folder).iterdir()):
            (root / folder).rmdir()
    sources = opened(root)
    assert (len(sources.train), len(sources.val), sources.test) == (4, 4, None)
    assert sources.class_names == ["0", "1", "2"]
    assert sources.notes == [unnamed("0-2")]
    image, mask = sources.val.load(3)
    assert image.size == (60, 40)
    np.testing.assert_array_equal(mask, quarter_mask(value=2))


def test_folders_without_splits_are_split(tmp_path):
    for number in range(10):
        write_picture(tmp_path / "images" / f"{number}.jpg")
        write_mask(tmp_path / "masks" / f"{number}_mask.png", quarter_mask())
    sources = opened(tmp_path, val_fraction=0.3)
    assert (len(sources.train), len(sources.val)) == (7, 3)
    places = {part.where(n) for part in (sources.train, sources.val) for n in range(len(part))}
    assert len(places) == 10


def test_voc_lists_name_the_pictures(tmp_path):
    for number in range(5):
        write_picture(tmp_path / "JPEGImages" / f"2007_{number}.jpg")
        if number < 4:
            write_mask(tmp_path / "SegmentationClass" / f"2007_{number}.png", quarter_mask(), indexed=True)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_0\n2007_2\n2007_9\n")
    (lists / "val.txt").write_text("2007_1\n")
    (lists / "trainval.txt").write_text("2007_0\n2007_1\n")
    sources = opened(tmp_path)
    assert [sources.train.where(n)[-10:] for n in range(len(sources.train))] == ["2007_0.jpg", "2007_2.jpg"]
    assert len(sources.val) == 1
    assert sources.notes == [
        "listed names left out (without picture and mask): 1, e.g. 2007_9",
        unnamed("0-1"),
    ]


def test_names_of_classes_are_read_beside(tmp_path):
    root = write_masks(tmp_path)
    (root / "classes.txt").write_text("nothing\ncat\ndog\nhorse\n", encoding="utf-8-sig")
    assert opened(root).class_names == ["nothing", "cat", "dog", "horse"]


def test_without_names_the_values_that_occur_are_the_classes(tmp_path):
    root = write_masks(tmp_path)
    for number, value in enumerate((7, 128, 254, 128)):
        write_mask(root / f"masks/train/{number}.png", quarter_mask(value=value))
        write_mask(root / f"masks/val/{number}.png", quarter_mask(value=value))
    ignoring = quarter_mask(value=254)
    ignoring[-1] = 255
    write_mask(root / "masks/val/3.png", ignoring)
    sources = opened(root)
    assert sources.class_names == ["0", "7", "128", "254"]
    assert sources.notes == [unnamed("0, 7, 128 and 254")]
    np.testing.assert_array_equal(sources.train.load(1)[1], quarter_mask(value=2))
    expected = quarter_mask(value=3)
    expected[-1] = 255
    np.testing.assert_array_equal(sources.val.load(3)[1], expected)


def test_lossy_masks_are_refused(tmp_path):
    root = write_masks(tmp_path)
    for path in sorted(root.glob("masks/*/*.png")):
        Image.fromarray(quarter_mask(value=120)).save(path.with_suffix(".jpg"), quality=80)
        path.unlink()
    with pytest.raises(
        UserError, match=r"no mask can be used, e\.g\. .*0\.jpg \(is a JPEG, which changes"
    ) as caught:
        opened(root)
    assert "\n" not in str(caught.value)
    for path in sorted(root.glob("masks/*/*.jpg"))[1:]:
        write_mask(path.with_suffix(".png"), quarter_mask())
        path.unlink()
    with pytest.raises(UserError, match=r"of 8 masks, 1 can't be used, e\.g\. .*0\.jpg \(is a JPEG"):
        opened(root)


def test_values_of_a_mask_are_those_of_all_its_rows(monkeypatch):
    monkeypatch.setattr("isometry.data.dense.mask_reading.CHUNK", 8)
    mask = np.arange(60, dtype=np.uint8).reshape(20, 3) * 4
    assert values_in(mask) == {4 * value for value in range(60)}
    assert values_in(np.zeros((0, 3), np.uint8)) == set()


def test_large_masks_are_counted_in_little_memory():
    mask = np.ones((4000, 4000), np.uint8)
    tracemalloc.start()
    assert values_in(mask) == {1}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < mask.nbytes  # all at once, the counts of the pixels take eight times that


@pytest.mark.parametrize("kind", ["grey", "indexed", "16 bits", "1 bit"])
def test_masks_may_be_greys_or_indices(tmp_path, kind):
    root = write_masks(tmp_path)
    mask = quarter_mask(value=1)
    path = root / "masks/train/0.png"
    if kind == "16 bits":
        Image.fromarray(mask.astype(np.uint16)).save(path)
    elif kind == "1 bit":
        Image.fromarray(mask > 0).save(path)
    else:
        write_mask(path, mask, indexed=kind == "indexed")
    np.testing.assert_array_equal(opened(root).train.load(0)[1], mask)


def test_255_is_ignored_and_no_class(tmp_path):
    root = write_masks(tmp_path)
    mask = quarter_mask()
    mask[-1] = 255
    write_mask(root / "masks/train/0.png", mask)
    sources = opened(root)
    assert len(sources.class_names) == 3
    assert (sources.train.load(0)[1][-1] == 255).all()


def test_pictures_and_masks_without_each_other_are_left_out_and_named(tmp_path):
    root = write_masks(tmp_path)
    (root / "masks/train/1.png").unlink()
    (root / "images/val/2.jpg").unlink()
    sources = opened(root)
    assert (len(sources.train), len(sources.val)) == (3, 3)
    assert sources.notes == [
        "pictures left out (without a mask): 1, e.g. images/train/1.jpg",
        "masks left out (without a picture): 1, e.g. masks/val/2.png",
        unnamed("0-2"),
    ]


def test_masks_of_another_size_are_left_out_with_their_pictures(tmp_path):
    root = write_masks(tmp_path)
    write_mask(root / "masks/train/1.png", quarter_mask((61, 40)))
    sources = opened(root)
    assert len(sources.train) == 3
    assert "pictures left out (their masks are of another size): 1" in sources.notes[0]
    assert "(60×40 and 61×40 with its mask)" in sources.notes[0]


def test_values_beyond_the_named_classes_are_refused(tmp_path):
    root = write_masks(tmp_path)
    (root / "classes.txt").write_text("a\nb\n")
    with pytest.raises(
        UserError, match=r"names the values 0-1, and 4 masks have others, e\.g\. .*1\.png \(2\); name all"
    ):
        opened(root)


@pytest.mark.parametrize("indexed", [False, True])
def test_masks_of_0_and_255_alone_are_refused_with_a_line_that_mends_them(tmp_path, indexed):
    root = write_masks(tmp_path)
    for path in root.glob("masks/*/*.png"):
        write_mask(path, quarter_mask(value=255), indexed)
    with pytest.raises(UserError, match="have the values 0 and 255 alone, and 255 is ignored; if") as caught:
        opened(root)
    message = str(caught.value)
    line = message[message.index("from PIL") :]
    for path in root.glob("masks/*/*.png"):
        exec(line, {"path": path})
    sources = opened(root)
    assert sources.class_names == ["0", "1"]
    np.testing.assert_array_equal(sources.train.load(0)[1], quarter_mask())


@pytest.mark.parametrize(("value", "named"), [(0, False), (0, True), (255, True), (3, False)])
def test_masks_of_a_single_class_are_refused(tmp_path, value, named):
    root = write_masks(tmp_path)
    for path in root.glob("masks/train/*.png"):
        write_mask(path, np.full((40, 60), value, np.uint8))
    if named:
        (root / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(UserError, match=f"have the value {value} alone, and 255 is ignored"):
        opened(root)


def test_named_classes_without_a_pixel_are_noted(tmp_path):
    root = write_masks(tmp_path)
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    (note,) = opened(root).notes
    assert note == "classes without a pixel in the training masks: 1, e.g. d"


UNUSABLE = {
    "colours": (lambda path: Image.new("RGB", (60, 40)).save(path), "is of mode RGB, not of one channel"),
    "deep": (
        lambda path: Image.fromarray(np.full((40, 60), 300, np.uint16)).save(path),
        "has values of 300 to 300, not all in 0 to 255",
    ),
    "no picture": (lambda path: path.write_bytes(b"no picture"), "of no image format that is read"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-30]), "truncated"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
@pytest.mark.parametrize("place", ["masks/train/0.png", "masks/val/1.png"])
def test_masks_that_cannot_be_used_are_refused_or_left_out_with_their_pictures(tmp_path, fault, place):
    root = write_masks(tmp_path)
    damage, why = UNUSABLE[fault]
    damage(root / place)
    with pytest.raises(UserError, match=r"of 8 masks, 1 can't be used, e\.g\. ") as caught:
        opened(root)
    assert f"{root / place} (" in str(caught.value)
    assert why in str(caught.value)
    assert "with --skip-bad-images" in str(caught.value)
    sources = opened(root, skip_bad_images=True)
    picture = place.replace("masks", "images").replace("png", "jpg")
    note = next(note for note in sources.notes if "can't be used" in note)
    assert note.startswith(f"pictures left out (their masks can't be used): 1, e.g. {picture} ({place}: ")
    assert len(sources.train) + len(sources.val) == 7
    config = DataConfig(workers=0, batch_size=4)
    assert sum(len(batch.indices) for batch in dense_loaders(sources, config, SPEC, 0).val) == len(
        sources.val
    )
    for path in root.glob("masks/*/*.png"):
        damage(path)
    with pytest.raises(UserError, match=r"no mask can be used, e\.g\. "):
        opened(root, skip_bad_images=True)


def test_a_mask_that_the_sample_missed_is_named_when_it_is_read(tmp_path, monkeypatch):
    """Not its picture, which is fine."""
    monkeypatch.setattr("isometry.data.dense.mask_files.DECODED", 2)
    root = write_masks(tmp_path)
    path = root / "masks/val/1.png"
    path.write_bytes(path.read_bytes()[:-30])
    (root / "classes.txt").write_text("a\nb\nc\n")
    sources = opened(root)
    config = DataConfig(workers=0, batch_size=4)
    with pytest.raises(UserError, match=r"cannot read the mask .*masks/val/1\.png \(.*truncated"):
        list(dense_loaders(sources, config, SPEC, 0).val)
    config = DataConfig(workers=0, batch_size=4, skip_bad_images=True)
    (batch,) = dense_loaders(sources, config, SPEC, 0).val
    assert batch.annotations.shape == (3, 32, 32)
    assert batch.unreadable == [f"{root / 'images/val/1.jpg'} (the mask {path})"]


def test_a_value_that_the_sample_missed_is_an_error_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("isometry.data.dense.mask_files.DECODED", 2)
    root = write_masks(tmp_path)
    sources = opened(root)
    assert sources.notes[0].startswith("masks whose values were looked at, of 8: 2")
    assert sources.class_names == ["0", "1"]
    with pytest.raises(DecodeError, match="has the value 2, and the 2 classes are 0-1; name all"):
        sources.train.load(1)


# Of the other turns the sizes don't tell: masks are taken for those of the upright picture.
TURNED = [("upright", orientation) for orientation in range(2, 9)] + [
    ("stored", each) for each in range(5, 9)
]


@pytest.mark.parametrize("exif", ["upright", "ignore"])
@pytest.mark.parametrize(("of", "orientation"), TURNED)
def test_masks_follow_the_orientation_of_their_picture(tmp_path, of, orientation, exif):
    root = write_masks(tmp_path)
    write_picture(root / "images/train/0.jpg", (60, 40), orientation)
    mask = quarter_mask()
    if of == "upright":
        plain = opened(root, exif="ignore").train.load(0)[0]
        upright = np.array(read_pixels(plain, Reading("RGB", full=True)))
        mask = ((upright[..., 0] > 127) & (upright[..., 1] < 127)).astype(np.uint8)
    write_mask(root / "masks/train/0.png", mask)
    sources = opened(root, exif=exif)
    image, found = sources.train.load(0)
    read = np.array(read_pixels(image, Reading("RGB", upright=exif == "upright", full=True)))
    assert found.shape == read.shape[:2]
    assert ((read[..., 0] > 127) == (found == 1)).mean() > 0.98
    turned = (of == "stored") == (exif == "upright")
    hidden = orientation < 5
    assert len(sources.notes) == hidden + turned + 1
    assert any("masks are taken to be of the upright picture" in note for note in sources.notes) == hidden


def test_no_masks_say_what_is_wanted(tmp_path):
    write_picture(tmp_path / "images/a.png")
    with pytest.raises(UserError, match="has no masks; give a folder with images/ and masks/"):
        opened(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match=r"the train part has no picture with a mask \(pictures left out"):
        opened(tmp_path)


def test_the_lines_of_the_documentation_write_masks_of_colours_as_classes(tmp_path, monkeypatch):
    """Of the page's tree; colours that it does not list become 255."""
    root = write_masks(tmp_path / "street")
    for path in root.glob("masks/*/*.png"):
        mask = quarter_mask()
        mask[-1] = 2
        Image.fromarray(np.array([(0, 0, 0), (128, 0, 0), (1, 2, 3)], np.uint8)[mask]).save(path)
    with pytest.raises(UserError, match=r"is of mode RGB, .* as docs/transfer\.md shows"):
        opened(root)
    monkeypatch.chdir(tmp_path)
    (block,) = (each for each in code_blocks(ROOT / "docs" / "transfer.md") if "as_classes" in each.text)
    exec(block.text, {})
    expected = quarter_mask()
    expected[-1] = 255
    np.testing.assert_array_equal(opened(root).train.load(0)[1], expected)
