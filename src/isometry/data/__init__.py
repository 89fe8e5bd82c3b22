"""Image data: ``find_sources`` opens it, ``make_loaders`` reads it, ``Preprocess`` prepares it on the device.

    DataConfig ─► find_sources ─► Sources ─► make_loaders (with the model's ImageSpec) ─► Batch ─► Preprocess

An epoch's order and every sample's augmentation are pure functions of (seed, epoch, position in the epoch's
global order), so a resumed run needs no stored state; see ``map_loader``, and ``stream_loader`` for data that can
only be read sequentially.
"""

from isometry.data.batch_reader import Batch
from isometry.data.copy_ahead import copied_ahead
from isometry.data.image_spec import ImageSpec
from isometry.data.loaders import Loaders, make_loaders
from isometry.data.map_loader import TrainLoader
from isometry.data.preprocess import Preprocess
from isometry.data.sources import Sources, find_sources, without_labels
from isometry.data.stream_loader import TrainStream

__all__ = [
    "Batch",
    "ImageSpec",
    "Loaders",
    "Preprocess",
    "Sources",
    "TrainLoader",
    "TrainStream",
    "copied_ahead",
    "find_sources",
    "make_loaders",
    "without_labels",
]
