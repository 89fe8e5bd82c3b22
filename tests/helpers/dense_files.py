"""Small data sets with boxes and masks, as files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def write_picture(path: Path, size: tuple[int, int] = (60, 40), orientation: int = 1) -> Path:
    """A PNG or JPEG with a red quarter at the left and top, as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size)
    image.paste((255, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(path, exif=exif)
    return path


def coco(images: int = 4, categories: tuple[int, ...] = (3, 7), **parts: Any) -> dict[str, Any]:
    """COCO's JSON of pictures 0.png, 1.png, ... with a box each; ``parts`` replace or add to it."""
    content = {
        "images": [{"id": 10 + n, "file_name": f"{n}.png", "width": 60, "height": 40} for n in range(images)],
        "annotations": [
            {
                "id": n,
                "image_id": 10 + n,
                "category_id": categories[n % len(categories)],
                "bbox": [0, 0, 30, 20],
            }
            for n in range(images)
        ],
        "categories": [{"id": each, "name": f"class {each}"} for each in categories],
    }
    return content | parts


def write_coco(path: Path, content: Any, pictures: Path) -> Path:
    """The JSON, and all pictures that it names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    for image in content["images"]:
        write_picture(pictures / image["file_name"])
    return path


def write_yolo(root: Path, images: int = 4, names: tuple[str, ...] = ("cat", "dog")) -> Path:
    """data.yaml, and pictures 0.png, 1.png, ... in train and val with a box at the left and top of each."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(
        f"train: images/train\nval: images/val\nnames: {list(names)}\n", encoding="utf-8"
    )
    for split in ("train", "val"):
        for number in range(images):
            write_picture(root / "images" / split / f"{number}.png")
            label = root / "labels" / split / f"{number}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"{number % len(names)} 0.25 0.25 0.5 0.5\n", encoding="utf-8")
    return root


def quarter_mask(size: tuple[int, int] = (60, 40), value: int = 1) -> np.ndarray:
    """The mask of the red quarter of :func:`write_picture`, as stored."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[: size[1] // 2, : size[0] // 2] = value
    return mask


def write_mask(path: Path, mask: np.ndarray, indexed: bool = False) -> Path:
    """A PNG of greys, or with a palette whose colours are others than its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if indexed:
        image.putpalette([channel for index in range(256) for channel in (255 - index, index // 2, 77)])
        assert image.mode == "P"
    image.save(path)
    return path


def write_masks(root: Path, images: int = 4) -> Path:
    """images/ and masks/ with train/ and val/ inside."""
    for split in ("train", "val"):
        for number in range(images):
            write_picture(root / "images" / split / f"{number}.jpg")
            write_mask(root / "masks" / split / f"{number}.png", quarter_mask(value=1 + number % 2))
    return root
