"""Valid ranges of the data options, checked before anything is opened."""

from isometry.config import DataConfig
from isometry.errors import UserError

CROP_MODES = ("rrc", "rkrc", "rkrr", "pad")
ERASING_MODES = ("const", "rand", "pixel")
MIXUP_MODES = ("batch", "pair", "elem")
INTERPOLATIONS = ("random", "nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def check_options(config: DataConfig) -> None:
    """Raises UserError for the first option with an invalid value."""
    validation_batch_size = config.validation_batch_size
    rules: dict[str, tuple[object, bool, str]] = {
        "--batch-size": (config.batch_size, config.batch_size >= 1, "at least 1"),
        "--validation-batch-size": (
            validation_batch_size,
            validation_batch_size is None or validation_batch_size >= 1,
            "at least 1",
        ),
        "--workers": (config.workers, config.workers >= 0, "0 or more"),
        "--val-fraction": (config.val_fraction, 0 < config.val_fraction < 1, "between 0 and 1"),
        "--aug-repeats": (config.aug_repeats, config.aug_repeats >= 0, "0 or more"),
        "--train-crop-mode": (
            config.train_crop_mode,
            config.train_crop_mode is None or config.train_crop_mode in CROP_MODES,
            _one_of(CROP_MODES),
        ),
        "--scale": (config.scale, _is_range(config.scale), "two positive numbers, the smaller first"),
        "--ratio": (config.ratio, _is_range(config.ratio), "two positive numbers, the smaller first"),
        "--color-jitter": (config.color_jitter, config.color_jitter >= 0, "0 or more"),
        "--remode": (config.remode, config.remode in ERASING_MODES, _one_of(ERASING_MODES)),
        "--recount": (config.recount, config.recount >= 1, "at least 1"),
        "--mixup": (config.mixup, config.mixup >= 0, "0 or more"),
        "--cutmix": (config.cutmix, config.cutmix >= 0, "0 or more"),
        "--mixup-mode": (config.mixup_mode, config.mixup_mode in MIXUP_MODES, _one_of(MIXUP_MODES)),
        "--smoothing": (config.smoothing, 0 <= config.smoothing < 1, "at least 0 and below 1"),
        "--train-interpolation": (
            config.train_interpolation,
            config.train_interpolation in INTERPOLATIONS,
            _one_of(INTERPOLATIONS),
        ),
        "--crop-pct": (config.crop_pct, config.crop_pct is None or 0 < config.crop_pct <= 1, "in (0, 1]"),
    }
    own_classes = config.dataset == "digits" or config.dataset.startswith("torch/")
    rules["--class-map"] = (
        config.class_map,
        config.class_map is None or not own_classes,
        f"left out: {config.dataset} has its own classes",
    )
    for name in ("hflip", "vflip", "reprob", "mixup_prob", "mixup_switch_prob"):
        value = getattr(config, name)
        rules[f"--{name.replace('_', '-')}"] = (value, 0 <= value <= 1, "between 0 and 1")
    for option, (value, holds, wanted) in rules.items():
        if not holds:
            raise UserError(f"{option} is {value}: it must be {wanted}")


def _is_range(values: list[float]) -> bool:
    return len(values) == 2 and 0 < values[0] <= values[1]


def _one_of(names: tuple[str, ...]) -> str:
    return f"one of {', '.join(names)}"
