"""The classes, image files and annotations of a run for boxes or masks, to tell whether they have changed."""

from typing import Any

from isometry.data.dense.annotations import DenseImages
from isometry.data.dense.sources import DenseSources
from isometry.data.inventory import Inventory, take_inventory
from isometry.data.sources import Sources
from isometry.data.splits import MapPart


class Annotated:
    """Annotated images as an inventory lists them; labels are the texts of ``DenseImages.annotation_id``."""

    def __init__(self, images: DenseImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def where(self, number: int) -> str:
        """The image's path, or a description of where it is."""
        return self.images.where(number)

    def labels(self) -> list[str]:
        """One for each image."""
        return [self.images.annotation_id(number) for number in range(len(self.images))]


def dense_inventory(sources: DenseSources, data_dir: str | None) -> Inventory:
    """As :func:`isometry.data.inventory.take_inventory`; images with other boxes, or with a mask of another name or
    size of its file, count as other images."""

    def part(images: DenseImages | None) -> Any:
        return None if images is None else MapPart(Annotated(images))  # type: ignore[arg-type]

    train, val, test = (part(each) for each in (sources.train, sources.val, sources.test))
    names, text = sources.class_names, sources.description
    return take_inventory(Sources(train, val, test, len(names), names, True, text), data_dir)
