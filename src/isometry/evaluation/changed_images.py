"""Whether the images of a finished run have changed since it was trained."""

from isometry.config import RunConfig
from isometry.config.paths import absolute_paths
from isometry.data import Sources
from isometry.data.dense.inventory import dense_inventory
from isometry.data.dense.sources import DenseSources
from isometry.data.inventory import (
    DRAWN_ANEW,
    OTHER_DATES,
    other_dates,
    other_images,
    read_record,
    take_inventory,
)
from isometry.evaluation.saved_network import SavedNetwork


def changed_images(saved: SavedNetwork, config: RunConfig, sources: Sources | DenseSources) -> list[str]:
    """A note, with counts, if the image files of the run, their boxes or masks are not those that it was trained with.

    None for images that are not the run's, and for runs of versions that kept no list of theirs. The images are told
    apart as :func:`isometry.data.inventory.take_inventory` and
    :func:`isometry.data.dense.inventory.dense_inventory` do.

    Args:
        saved: the network.
        config: with the place of the images, of :func:`isometry.evaluation.saved_network.images_named`.
        sources: these images; with boxes, as the run read them, with its own ``--exif``.

    Raises:
        UserError: the run's list is damaged.
    """
    if saved.run is None or saved.config is None or _place(config) != _place(saved.config):
        return []
    if (record := read_record(saved.run)) is None:
        return []
    if isinstance(sources, DenseSources):
        now = dense_inventory(sources, config.data_dir)
    else:
        now = take_inventory(sources, config.data_dir)
    changes = other_images(record["inventory"]["images"], now["images"])
    dates = other_dates(record["inventory"], now)
    touched = [f"{saved.run} has image files of the {OTHER_DATES}: {dates}"] if dates else []
    if not changes:
        return touched
    note = f"the image files of {saved.run} have changed since it was trained: {'; '.join(changes.values())}"
    redrawn = sources.test is None and {"training", "validation"} <= changes.keys()
    return [f"{note}. {DRAWN_ANEW}" if redrawn else note, *touched]


def _place(config: RunConfig) -> tuple[str | None, str]:
    return absolute_paths(config).data_dir, config.dataset
