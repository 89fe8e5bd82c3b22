"""Options of data and augmentation."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class DataConfig:
    """Data and augmentation (timm's names and meanings)."""

    data_dir: str | None = None
    """Folder of images (train/ and val/, or class folders that are split), or a list of them, .csv or .parquet."""
    dataset: str = ""
    """`digits` (scikit-learn's), `digit-scenes` (several on a canvas), a timm dataset (torch/..., hfds/..., wds/...),
    or empty for --data-dir alone."""
    train_split: str = "train"
    """Training split."""
    val_split: str = "validation"
    """Validation split."""
    val_fraction: float = 0.1
    """Fraction of the images used for validation if --data-dir is one folder, or a list without it."""
    class_map: str | None = None
    """File that maps class names to indices."""
    dataset_download: bool = False
    """Allow download of torch/ and hfds/ datasets."""
    allow_commands: bool = False
    """Allow an address as --data-dir (pipe:, https:, ...), which starts a program. Both on the command line only."""
    skip_bad_images: bool = False
    """Replace unreadable training images by their neighbours, leave others out, and name them, instead of stopping."""
    decode: Literal["scaled", "full"] = "scaled"
    """Decode large JPEGs at a reduced scale, after the crop was drawn, or in full."""
    exif: Literal["upright", "ignore"] = "upright"
    """Turn photographs upright by their EXIF orientation, or read them as they are stored (timm's way)."""
    pixel_range: str | None = None
    """Black and white of grey images of more than 8 bits, e.g. 0,4095, or `auto`: the values of a sample without its
    0.2 % lowest and highest pixels; the range of their type (0,65535 or 0,1) if not given."""
    batch_size: int = 128
    """Batch size of each process."""
    global_batch_size: int | None = None
    """Batch size of all processes together; overrides --batch-size."""
    validation_batch_size: int | None = None
    """Validation batch size; the training batch size if not given."""
    workers: int = 2
    """Data loading worker processes of training, and as many of validation (0: the process itself loads)."""
    pin_mem: bool = True
    """Pin CPU memory, so that copies to a GPU overlap with computation; no effect without one."""
    no_aug: bool = False
    """Disable all training augmentation."""
    train_crop_mode: str | None = None
    """timm's rrc, rkrc or rkrr; or pad: pad by 1/8 of the side, then crop at random (CIFAR)."""
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    """Random resized crop: range of the area."""
    ratio: list[float] = field(default_factory=lambda: [3.0 / 4.0, 4.0 / 3.0])
    """Random resized crop: range of the aspect ratio."""
    hflip: float = 0.5
    """Horizontal flip probability."""
    vflip: float = 0.0
    """Vertical flip probability."""
    color_jitter: float = 0.4
    """Colour jitter factor; not used with --aa."""
    aa: str | None = None
    """AutoAugment policy, e.g. rand-m9-mstd0.5-inc1."""
    aug_repeats: int = 0
    """Repeated augmentation: copies of each image in an epoch (0: off)."""
    reprob: float = 0.0
    """Random erasing probability."""
    remode: str = "pixel"
    """Random erasing mode."""
    recount: int = 1
    """Random erasing count."""
    mixup: float = 0.0
    """Mixup alpha (0: off)."""
    cutmix: float = 0.0
    """CutMix alpha (0: off)."""
    mixup_prob: float = 1.0
    """Probability of applying mixup or CutMix."""
    mixup_switch_prob: float = 0.5
    """Probability of CutMix instead of mixup when both are on."""
    mixup_mode: str = "batch"
    """Apply mixup per batch, pair or elem."""
    smoothing: float = 0.0
    """Label smoothing."""
    train_interpolation: str = "random"
    """Interpolation of training images."""
    crop_pct: float | None = None
    """Validation crop fraction; the model's own if not given."""
