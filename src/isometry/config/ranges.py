"""The range of every numeric option, by name; a list's numbers are each within it."""

from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The numbers from ``least`` to ``most``; ``without`` names the ends that are not among them."""

    least: float
    most: float
    without: tuple[float, ...] = ()

    def __contains__(self, value: object) -> bool:
        """Whether a number is within; NaN never is."""
        return (
            isinstance(value, int | float) and self.least <= value <= self.most and value not in self.without
        )

    def __str__(self) -> str:
        low = f"above {self.least:,}" if self.least in self.without else f"at least {self.least:,}"
        high = f"below {self.most:,}" if self.most in self.without else f"at most {self.most:,}"
        return f"{low} and {high}"


PROBABILITY = Range(0, 1)
SHARE = Range(0, 1, without=(0,))
DROPPED = Range(0, 0.99)
BATCH = Range(1, 1_000_000)
STEPS = Range(0, 1_000_000_000)
RATE = Range(0, 10_000)
"""Of learning; 1 is usual for optimizers that estimate it."""
SEED = Range(-(2**63), 2**63 - 1)

RANGES: dict[str, Range] = {
    # data
    "val_fraction": Range(0, 1, without=(0, 1)),
    "batch_size": BATCH,
    "global_batch_size": BATCH,
    "validation_batch_size": BATCH,
    "workers": Range(0, 1024),
    "scale": Range(0.001, 10),
    "ratio": Range(0.01, 100),
    "hflip": PROBABILITY,
    "vflip": PROBABILITY,
    "color_jitter": Range(0, 10),
    # An epoch keeps its length, and has fewer different images.
    "aug_repeats": Range(0, 100),
    "reprob": PROBABILITY,
    # Each image is erased so often, one rectangle after another.
    "recount": Range(1, 100),
    "mixup": Range(0, 1000),
    "cutmix": Range(0, 1000),
    "mixup_prob": PROBABILITY,
    "mixup_switch_prob": PROBABILITY,
    "smoothing": Range(0, 1, without=(1,)),
    # Images are scaled by its inverse.
    "crop_pct": Range(0.1, 1),
    # networks
    "img_size": Range(1, 4096),
    "in_chans": Range(1, 1024),
    "num_classes": Range(0, 1_000_000),
    "drop": DROPPED,
    "drop_path": DROPPED,
    "teacher_cache_size": Range(0, 1_000_000),
    # growth and pruning
    "prune.keep_rate": SHARE,
    "prune.settle": Range(0, 1, without=(1,)),
    "prune.group": Range(1, 65_536),
    # optimizer, schedule, precision
    "epochs": Range(1, 1_000_000),
    "opt_eps": Range(0, 1),
    "opt_betas": Range(0, 1, without=(1,)),
    "momentum": Range(0, 1),
    "weight_decay": Range(0, 1000),
    "clip_grad": Range(1e-12, 10**12),
    "lr": RATE,
    "lr_base": RATE,
    "lr_base_size": Range(1, 1_000_000_000),
    "min_lr": RATE,
    "warmup_lr": RATE,
    "warmup_epochs": Range(0, 1_000_000),
    "grad_accum_steps": BATCH,
    "model_ema_decay": PROBABILITY,
    # run
    "seed": SEED,
    "log_interval": Range(1, STEPS.most),
    "recovery_interval": STEPS,
    # other commands
    "batch_sizes": Range(1, 65_536),
    "threads": Range(1, 1024),
    "seconds": Range(0, 3600, without=(0,)),
    "seeds": Range(1, 1000),
    "first_seed": Range(SEED.least, SEED.most - 1000),
}
"""By the option's name, with that of its group."""


def out_of_range(config: Any, part: type | None = None) -> str:
    """The first number of a dataclass of options that is out of its range, as a sentence; empty if there is none.

    ``part`` is the class whose options are looked at, by default that of ``config``.
    """
    for name in (field.name for field in fields(part or type(config))):
        value = getattr(config, name)
        inner = vars(value) if is_dataclass(value) else {}
        for key, found in {
            name: value,
            **{f"{name}.{within}": each for within, each in inner.items()},
        }.items():
            if fault := _fault(key, found):
                return fault
    return ""


def _fault(name: str, value: Any) -> str:
    if value is None or name not in RANGES:
        return ""
    wanted = RANGES[name]
    numbers = value if isinstance(value, list) else [value]
    if all(number in wanted for number in numbers):
        return ""
    return f"--{name.replace('_', '-')} {value}: must be {wanted}"
