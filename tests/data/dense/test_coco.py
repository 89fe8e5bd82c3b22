"""Boxes in COCO's JSON: the layouts that people have, and what is found before training."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from helpers.dense_files import coco, write_coco, write_picture
from isometry.config import DataConfig
from isometry.data.decoding import Reading, open_image, read_pixels
from isometry.data.dense.sources import DenseSources, find_dense_sources
from isometry.data.image_formats import read_bytes
from isometry.errors import UserError


def opened(root: Path, **options: object) -> DenseSources:
    return find_dense_sources(DataConfig(data_dir=str(root), **options), "detect")


def one_file(root: Path, content: object) -> Path:
    """A folder with train.json and its pictures."""
    write_coco(root / "train.json", content, root / "images")
    return root


LAYOUTS = {
    "coco": ("annotations/instances_{}2017.json", "{}2017"),
    "coco, pictures in images": ("annotations/instances_{}2017.json", "images/{}2017"),
    "one folder of pictures": ("annotations/{}.json", "images"),
    "beside": ("{}.json", "{}"),
    "roboflow": ("{}/_annotations.coco.json", "{}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_found(tmp_path, layout):
    file, pictures = LAYOUTS[layout]
    for split, images in (("train", 4), ("valid" if layout == "roboflow" else "val", 2), ("test", 1)):
        write_coco(tmp_path / file.format(split), coco(images), tmp_path / pictures.format(split))
    # What lies beside them in COCO's own folder.
    if layout == "coco":
        (tmp_path / "annotations/captions_train2017.json").write_text("{}")
    sources = opened(tmp_path)
    assert [len(part) for part in (sources.train, sources.val, sources.test)] == [4, 2, 1]
    assert sources.class_names == ["class 3", "class 7"]
    image, boxes = sources.val.load(1)
    assert image.size == (60, 40)
    assert boxes.xyxy.tolist() == [[0, 0, 30, 20]]
    assert boxes.labels.tolist() == [1]
    assert boxes.areas.tolist() == [600]
    assert sources.train.where(0).endswith("0.png")


def test_validation_is_split_off_always_the_same_way(tmp_path):
    root = one_file(tmp_path, coco(20))
    first, second = opened(root, val_fraction=0.2), opened(root / "train.json", val_fraction=0.2)
    assert (len(first.train), len(first.val), first.test) == (16, 4, None)
    parts = [{part.where(n) for n in range(len(part))} for part in (first.train, first.val)]
    assert len(parts[0] | parts[1]) == 20
    assert parts[1] == {second.val.where(n) for n in range(4)}
    assert "validation split off: 16 training, 4 validation images with boxes, 2 classes" in first.description


def test_ids_are_mapped_in_their_order_and_alike_in_all_splits(tmp_path):
    write_coco(tmp_path / "train.json", coco(4, (90, 5)), tmp_path / "images")
    write_coco(tmp_path / "val.json", coco(2, (90, 41)), tmp_path / "images")
    sources = opened(tmp_path)
    assert sources.class_names == ["class 5", "class 41", "class 90"]
    assert [int(sources.train.load(n)[1].labels[0]) for n in range(4)] == [2, 0, 2, 0]
    assert [int(sources.val.load(n)[1].labels[0]) for n in range(2)] == [2, 1]


def test_a_class_that_has_another_id_in_validation_is_matched_by_its_name(tmp_path):
    write_coco(tmp_path / "train.json", coco(4, (3, 7)), tmp_path / "images")
    other = coco(2, (11, 12))
    other["categories"] = [{"id": 12, "name": "class 3"}, {"id": 11, "name": "class 7"}]
    write_coco(tmp_path / "val.json", other, tmp_path / "images")
    sources = opened(tmp_path)
    assert sources.class_names == ["class 3", "class 7"]
    assert [int(sources.train.boxes(n).labels[0]) for n in range(4)] == [0, 1, 0, 1]
    assert [int(sources.val.boxes(n).labels[0]) for n in range(2)] == [1, 0]
    found = "categories that have another id in another file (matched by name)"
    assert f"{found}: 2, e.g. class 3 (3, 12), class 7 (7, 11)" in sources.notes


def test_crowds_and_areas_are_kept(tmp_path):
    content = coco(2)
    content["annotations"][0] |= {"iscrowd": 1, "area": 123.5}
    boxes = opened(one_file(tmp_path, content), val_fraction=0.5)
    both = [part.load(0)[1] for part in (boxes.train, boxes.val)]
    assert sorted((bool(each.crowd[0]), float(each.areas[0])) for each in both) == [
        (False, 600),
        (True, 123.5),
    ]


def box(number: int, bbox: object, **parts: object) -> dict[str, object]:
    return {"id": 100 + number, "image_id": 10, "category_id": 3, "bbox": bbox} | parts


FAULTS = {
    "no area": (
        [box(1, [5, 5, 0, 9]), box(2, [5, 5, 9, -1])],
        "boxes left out (of no area): 2, e.g. annotation 101 of",
    ),
    "NaN": ([box(1, [5, 5, float("nan"), 9])], "boxes left out (of no area): 1"),
    "outside": (
        [box(1, [70, 5, 10, 10])],
        "boxes left out (outside their picture): 1, e.g. annotation 101 of",
    ),
    "clipped": ([box(1, [50, 30, 20, 5])], "boxes clipped (they reach out of their picture): 1"),
    "no picture": (
        [box(1, [1, 1, 5, 5], image_id=99)],
        "(of images that are not listed): 1, e.g. image id 99",
    ),
    "no category": (
        [box(1, [1, 1, 5, 5], category_id=8)],
        "(of categories that are not listed): 1, e.g. category 8",
    ),
    "beyond any float": (
        [box(1, [1e308, 1, 1e308, 5]), box(2, [1, 1, 1e308, -1e308]), box(3, [-1e308, 1, 5, 5])],
        "boxes left out (of no area): 3, e.g. annotation 101 of",
    ),
    "id with an escape": (
        [box(1, [1, 1, 5, 5], image_id="\x1b[31mx")],
        r"(of images that are not listed): 1, e.g. image id \x1b[31mx",
    ),
    "id without end": (
        [box(1, [1, 1, 5, 5], category_id=10**400)],
        f"(of categories that are not listed): 1, e.g. category 1{'0' * 59}...",
    ),
    "no box": ([box(1, None), box(2, [1, 2, 3])], "(without a box of four numbers): 2, e.g. annotation 101"),
    "twice": ([box(1, [1, 1, 5, 5]), box(1, [1, 1, 5, 5])], "annotations left out (listed twice): 1"),
    "twice with other ids": (
        [box(1, [1, 1, 5, 5]), box(2, [1, 1, 5, 5]), box(3, [1, 1, 5, 5], category_id=7)],
        "boxes that another annotation repeats (kept): 1, e.g. annotation 102",
    ),
    "an id as text": (
        [box(1, [1, 1, 5, 5], image_id="10")],
        "image ids that are a number in one place and text in another (taken as one): 1, e.g. 10",
    ),
    "same id": ([box(1, [1, 1, 5, 5]), box(1, [2, 2, 5, 5])], "with the id of another one (kept): 1"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_boxes_are_counted_and_named(tmp_path, fault):
    more, note = FAULTS[fault]
    content = coco(4)
    content["annotations"] += more
    sources = opened(one_file(tmp_path, content))
    assert len(sources.notes) == 1
    assert note in sources.notes[0]
    assert len(sources.notes[0]) < 200
    assert sources.notes[0].startswith("train.json: ")
    assert str(tmp_path) not in sources.notes[0]
    parts = (sources.train, sources.val)
    kept = np.concatenate([part.load(n)[1].xyxy for part in parts for n in range(len(part))])
    more_kept = {"clipped": 1, "twice": 1, "twice with other ids": 3, "an id as text": 1, "same id": 2}
    assert len(kept) == 4 + more_kept.get(fault, 0)
    assert (kept[:, 2:] > kept[:, :2]).all()
    assert (kept[:, 2:] <= (60, 40)).all()
    if fault == "clipped":
        assert [50, 30, 60, 35] in kept.tolist()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("area", [1e300, float("inf"), float("nan")])
def test_impossible_areas_are_those_of_the_boxes(tmp_path, area):
    content = coco(4)
    content["annotations"][0]["area"] = area
    sources = opened(one_file(tmp_path, content))
    (note,) = sources.notes
    assert "areas that are not finite (taken from the boxes): 1, e.g. annotation 0 of" in note
    for part in (sources.train, sources.val):
        assert all(part.boxes(number).areas.tolist() == [600] for number in range(len(part)))


def test_boxes_of_crowds_alone_are_refused(tmp_path):
    content = coco(4)
    for each in content["annotations"]:
        each["iscrowd"] = 1
    root = one_file(tmp_path, content)
    with pytest.raises(
        UserError, match=r"no box that can be used \(boxes of crowds \(iscrowd, neither .*\): 4"
    ):
        opened(root)
    content["annotations"][0]["iscrowd"] = 0
    (note,) = opened(one_file(tmp_path, content), val_fraction=0.5).notes
    assert "categories without a box: 1, e.g. class 7" in note


def test_categories_of_one_name_are_named(tmp_path):
    content = coco(4)
    for each in content["categories"]:
        each["name"] = "cat"
    sources = opened(one_file(tmp_path, content))
    assert sources.class_names == ["cat", "cat"]
    assert sources.notes == ["train.json: names of several categories (kept apart): 1, e.g. cat"]


def test_a_width_of_many_digits_is_cut_in_the_note(tmp_path):
    content = coco(4)
    content["images"][0]["width"] = 10**400
    (note, *_) = opened(one_file(tmp_path, content)).notes
    assert f"(60×40, not 1{'0' * 59}...×40)" in note


def test_good_files_need_no_note(tmp_path):
    assert opened(one_file(tmp_path, coco(4))).notes == []


def test_categories_without_images_are_named_and_keep_their_place(tmp_path):
    content = coco(4)
    content["categories"].insert(0, {"id": 1, "name": "unicorn"})
    sources = opened(one_file(tmp_path, content))
    assert sources.class_names == ["unicorn", "class 3", "class 7"]
    assert sources.notes == ["train.json: categories without a box: 1, e.g. unicorn"]


def test_pictures_without_boxes_are_kept(tmp_path):
    content = coco(4)
    content["annotations"] = content["annotations"][:1]
    sources = opened(one_file(tmp_path, content))
    parts = (sources.train, sources.val)
    assert sorted(len(part.boxes(n)) for part in parts for n in range(len(part))) == [0, 0, 0, 1]


def test_missing_pictures_are_refused_or_left_out_and_named(tmp_path):
    root = one_file(tmp_path, coco(4))
    (root / "images/2.png").unlink()
    with pytest.raises(
        UserError, match=r"of 4 pictures, 1 can't be found, e\.g\. .*2\.png.*--skip-bad-images"
    ):
        opened(root)
    sources = opened(root, skip_bad_images=True)
    assert len(sources.train) + len(sources.val) == 3
    assert "pictures left out (not found): 1, e.g. " in sources.notes[0]


def test_pictures_of_another_size_are_left_out(tmp_path):
    root = one_file(tmp_path, coco(4))
    write_picture(root / "images/1.png", (30, 20))
    sources = opened(root)
    assert len(sources.train) + len(sources.val) == 3
    assert "(of another size than their annotations say): 1" in sources.notes[0]
    assert "(30×20, not 60×40)" in sources.notes[0]


def test_a_picture_under_two_ids_has_the_boxes_of_both(tmp_path):
    content = coco(4)
    content["images"].append({"id": 77, "file_name": "0.png", "width": 60, "height": 40})
    content["annotations"].append(box(1, [1, 2, 3, 4], image_id=77))
    sources = opened(one_file(tmp_path, content))
    parts = (sources.train, sources.val)
    assert sorted(len(part.boxes(n)) for part in parts for n in range(len(part))) == [1, 1, 1, 2]
    assert "listed again (their annotations are joined): 1" in sources.notes[0]


REFUSED = {
    "not JSON": ("{", "is no COCO JSON of boxes"),
    "a list": ("[]", "is no COCO JSON of boxes"),
    "no images": ('{"annotations": [], "categories": []}', r"images: field required"),
    "wrong type": (
        json.dumps(coco(1) | {"annotations": [{"image_id": 1, "category_id": "x"}]}),
        r"annotations\.0\.category_id",
    ),
    "no categories": (json.dumps(coco(1, categories=(3,)) | {"categories": []}), "names no categories"),
    "one id, two images": (
        json.dumps(coco(1) | {"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]}),
        r"the image id 1 is that of .*a\.png and of .*b\.png",
    ),
    "one id as a number and as text, two images": (
        json.dumps(
            coco(1) | {"images": [{"id": 0, "file_name": "a.png"}, {"id": "0", "file_name": "b.png"}]}
        ),
        r"the image id 0 is that of .*a\.png and of .*b\.png",
    ),
    "one id with an escape": (
        json.dumps(
            coco(1) | {"images": [{"id": "\x1b[31mx", "file_name": each} for each in ("a.png", "b.png")]}
        ),
        r"the image id \\x1b\[31mx is that of",
    ),
    "nothing left": (
        json.dumps(coco(1) | {"annotations": [box(1, [0, 0, 0, 0])]}),
        r"has no box that can be used \(boxes left out \(of no area\): 1",
    ),
    "two names": (
        json.dumps(coco(1) | {"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}),
        "category 3 is 'b', and 'a' before",
    ),
    "control character": (
        json.dumps(coco(1) | {"images": [{"id": 10, "file_name": "a\0.png"}]}),
        "control character",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_broken_json_is_refused_in_one_line(tmp_path, fault):
    text, message = REFUSED[fault]
    write_picture(tmp_path / "images/0.png")
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "train.json") in str(caught.value)


def test_several_files_of_a_split_are_refused(tmp_path):
    for name in ("train_a.json", "train_b.json"):
        write_coco(tmp_path / name, coco(1), tmp_path / "images")
    with pytest.raises(
        UserError, match=r"several files of annotations for train \(train_a.json, train_b.json\)"
    ):
        opened(tmp_path)


def test_test_pictures_without_annotations_are_left_out(tmp_path):
    root = one_file(tmp_path, coco(4))
    (root / "test.json").write_text(json.dumps({"images": coco(4)["images"]}))
    sources = opened(root)
    assert sources.test is None
    assert "the test pictures are left out" in sources.notes[0]


def test_folders_without_boxes_say_what_is_wanted(tmp_path):
    write_picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="has no boxes; give a folder with COCO's annotations"):
        opened(tmp_path)
    with pytest.raises(UserError, match=r"--dataset digits has no boxes; give digit-scenes"):
        find_dense_sources(DataConfig(dataset="digits"), "detect")


# Of the other turns the sizes don't tell: boxes are taken for those of the upright picture.
TURNED = [("upright", orientation) for orientation in range(2, 9)] + [
    ("stored", each) for each in range(5, 9)
]


@pytest.mark.parametrize("exif", ["upright", "ignore"])
@pytest.mark.parametrize(("of", "orientation"), TURNED)
def test_boxes_follow_the_orientation_of_their_picture(tmp_path, of, orientation, exif):
    """The box around the red quarter lies around it in the picture as it is read, whichever way it was annotated."""
    path = write_picture(tmp_path / "images/0.png", (60, 40), orientation)
    upright = read_pixels(open_image(read_bytes(path)), Reading("RGB"))
    if of == "stored":
        size, corners = (60, 40), (0, 0, 30, 20)
    else:
        size, corners = upright.size, red(upright)
    left, top, right, bottom = corners
    content = coco(1)
    content["images"][0] |= {"width": size[0], "height": size[1]}
    content["annotations"][0]["bbox"] = [left, top, right - left, bottom - top]
    content["images"].append({"id": 11, "file_name": "1.png"})
    write_picture(tmp_path / "images/1.png")
    (tmp_path / "train.json").write_text(json.dumps(content))
    sources = opened(tmp_path, exif=exif, val_fraction=0.5)
    part = next(part for part in (sources.train, sources.val) if len(part.boxes(0)))
    image, boxes = part.load(0)
    read = read_pixels(image, Reading("RGB", upright=exif == "upright"))
    assert boxes.xyxy.tolist() == [list(red(read))]
    turned = (of == "stored") == (exif == "upright")
    hidden = orientation < 5
    assert len(sources.notes) == hidden + turned + 1
    assert ("pictures with an EXIF orientation (their boxes are taken to be of" in sources.notes[0]) == hidden
    assert ("turned along with them (EXIF): 1" in sources.notes[hidden]) == turned


@pytest.mark.parametrize(("size", "said"), [((60, 40), 2), ((40, 40), 3)])
def test_boxes_whose_size_does_not_tell_their_orientation_are_counted(tmp_path, size, said):
    """Mirrored pictures, square ones, and those whose size is not given; not those without boxes."""
    content = coco(4, annotations=coco(3)["annotations"])
    upright = ((2, size), (6, size[::-1]), (6, (None, None)), (3, size))
    for listed, (orientation, (width, height)) in zip(content["images"], upright, strict=True):
        listed |= {"width": width, "height": height}
        write_picture(tmp_path / "images" / listed["file_name"], size, orientation)
    (tmp_path / "train.json").write_text(json.dumps(content))
    note = next(note for note in opened(tmp_path).notes if "since no size tells" in note)
    assert note.endswith(f"exiftool -Orientation= FILE): {said}, e.g. images/0.png")


def red(image) -> tuple[int, int, int, int]:
    """The box of the red pixels, by a loop."""
    pixels = image.load()
    found = [(x, y) for x in range(image.width) for y in range(image.height) if pixels[x, y][0] > 127]
    columns, rows = zip(*found, strict=True)
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


def test_an_unreadable_picture_stays_and_is_an_error_when_it_is_read(tmp_path):
    root = one_file(tmp_path, coco(4))
    (root / "images/1.png").write_bytes(b"no picture")
    sources = opened(root)
    assert len(sources.train) + len(sources.val) == 4
    assert "pictures that can't be read: 1, e.g. " in sources.notes[0]


def test_pipes_deep_json_and_odd_names_do_no_harm(tmp_path):
    """Neither waited for, nor a traceback."""
    content = coco(4)
    content["images"] += [{"id": 50, "file_name": ""}, {"id": 51, "file_name": "pipe.png"}]
    root = one_file(tmp_path, coco(4))
    (root / "train.json").write_text(json.dumps(content))
    os.mkfifo(root / "images/pipe.png")
    (note,) = opened(root).notes
    assert "pictures that can't be read: 2" in note
    assert "not a regular file" in note
    content["images"] += [{"id": 52, "file_name": "\ud800.png"}]
    (root / "train.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="1 can't be found") as caught:
        opened(root)
    assert str(caught.value).isprintable()
    (root / "train.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="is no COCO JSON of boxes"):
        opened(root)


def roboflow(parent: str = "objects") -> dict:
    """As Roboflow writes it: the category 0 groups the others, and has no box."""
    others = [{"id": each, "name": f"class {each}", "supercategory": parent} for each in (3, 7)]
    return coco(4) | {"categories": [{"id": 0, "name": "objects", "supercategory": "none"}, *others]}


def test_a_category_that_groups_others_and_has_no_annotation_is_left_out(tmp_path):
    sources = opened(one_file(tmp_path, roboflow()))
    assert sources.class_names == ["class 3", "class 7"]
    (note,) = sources.notes
    assert "categories left out (they group others, and have no annotation): 1, e.g. objects" in note
    plain = opened(one_file(tmp_path, coco(4)))
    for part, same in ((sources.train, plain.train), (sources.val, plain.val)):
        for number in range(len(part)):
            assert part.boxes(number).labels.tolist() == same.boxes(number).labels.tolist()


def test_a_category_that_groups_others_is_a_class_where_it_has_annotations(tmp_path):
    root = one_file(tmp_path, roboflow())
    validation = roboflow()
    validation["annotations"].append(box(1, [1, 1, 5, 5], category_id=0))
    write_coco(root / "val.json", validation, root / "images")
    assert opened(root).class_names == ["objects", "class 3", "class 7"]


def test_a_category_that_groups_only_itself_or_nothing_keeps_its_place(tmp_path):
    content = roboflow(parent="animal")
    content["categories"][0]["supercategory"] = "objects"  # as COCO's person
    content["categories"].append({"id": 8, "name": "class 8", "supercategory": 5})
    sources = opened(one_file(tmp_path, content))
    assert sources.class_names == ["objects", "class 3", "class 7", "class 8"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_alone_finds_its_pictures_and_names_the_others(tmp_path, layout):
    file, pictures = LAYOUTS[layout]
    other = "valid" if layout == "roboflow" else "val"
    write_coco(tmp_path / file.format("train"), coco(4), tmp_path / pictures.format("train"))
    alone = opened(tmp_path / file.format("train"))
    assert (len(alone.train) + len(alone.val), alone.notes) == (4, [])
    write_coco(tmp_path / file.format(other), coco(2), tmp_path / pictures.format(other))
    sources = opened(tmp_path / file.format("train"))
    assert len(sources.train) + len(sources.val) == 4
    (note,) = sources.notes
    name = Path(file.format("train")).name
    assert note == f"{name} alone is read; give --data-dir {tmp_path} to use {file.format(other)} too"
    both = opened(tmp_path)
    assert (len(both.train), len(both.val)) == (4, 2)
    shared = ["pictures in training and in validation"] * (layout == "one folder of pictures")
    assert [note.partition(" (")[0] for note in both.notes] == shared


def test_the_folder_of_the_files_alone_finds_the_pictures_beside_it(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        file = tmp_path / f"annotations/instances_{split}2017.json"
        write_coco(file, coco(count), tmp_path / f"{split}2017")
    sources = opened(tmp_path / "annotations")
    assert (len(sources.train), len(sources.val), sources.notes) == (4, 2, [])


def test_notes_begin_with_the_name_of_the_file_or_with_its_path_where_names_are_alike(tmp_path):
    content = coco(4)
    content["annotations"].append(box(1, [70, 5, 10, 10]))
    for split in ("train", "valid"):
        write_coco(tmp_path / f"one/annotations/instances_{split}.json", content, tmp_path / "one/images")
        write_coco(tmp_path / f"two/{split}/_annotations.coco.json", content, tmp_path / f"two/{split}")
    starts = {
        "one": ("instances_train.json", "instances_valid.json"),
        "two": ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
    }
    for name, wanted in starts.items():
        notes = opened(tmp_path / name).notes
        assert [note.split(": ")[0] for note in notes if "boxes" in note] == list(wanted)


def test_pictures_that_are_all_missing_are_no_matter_of_single_ones(tmp_path):
    write_coco(tmp_path / "train.json", coco(4), tmp_path / "elsewhere")
    for options in ({}, {"skip_bad_images": True}):
        with pytest.raises(
            UserError, match=r"none of its 4 pictures can be found, e\.g\. .*0\.png; give --data-dir"
        ):
            opened(tmp_path, **options)
