"""The options of a run, with their defaults and help texts; names follow timm.

The command line overrides the YAML file of ``--config``, which overrides these defaults.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Reduction = Literal["mean", "paper"]


@dataclass
class DataConfig:
    """Data and augmentation (timm's names and meanings)."""

    data_dir: str | None = None
    """Image folder: train/ and val/ (with one folder per class), or one folder that is split."""
    dataset: str = ""
    """`digits` (scikit-learn's), a timm dataset (torch/..., hfds/..., wds/...), or empty for --data-dir alone."""
    train_split: str = "train"
    """Training split."""
    val_split: str = "validation"
    """Validation split."""
    val_fraction: float = 0.1
    """Fraction of the images used for validation if --data-dir is one folder."""
    class_map: str | None = None
    """File that maps class names to indices."""
    dataset_download: bool = False
    """Allow download of torch/ and hfds/ datasets."""
    skip_bad_images: bool = False
    """Replace unreadable images by their neighbours and report them, instead of stopping."""
    decode: Literal["scaled", "full"] = "scaled"
    """Decode large JPEGs at a reduced scale, after the crop was drawn, or in full."""
    batch_size: int = 128
    """Batch size of each process."""
    global_batch_size: int | None = None
    """Batch size of all processes together; overrides --batch-size."""
    validation_batch_size: int | None = None
    """Validation batch size; the training batch size if not given."""
    workers: int = 2
    """Data loading worker processes."""
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


@dataclass
class ModelConfig:
    """Model to train (the student, with a teacher)."""

    model: str = ""
    """timm name, folder of a run, local-dir:PATH or hf-hub:NAME."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of timm.create_model, e.g. `depth=6 embed_dim=192`."""
    pretrained: bool = False
    """Start from timm's pretrained weights; local-dir: and hf-hub: always load theirs."""
    initial_checkpoint: str | None = None
    """Start from the weights in this file."""
    img_size: int | None = None
    """Input image size, pixels; the model's own if not given."""
    in_chans: int | None = None
    """Input channels: 3 (RGB) or 1 (greyscale); the model's own if not given."""
    num_classes: int | None = None
    """Number of classes; that of the data, or of the teacher without labels, if not given. 0: no classifier."""
    drop: float = 0.0
    """Dropout rate."""
    drop_path: float = 0.0
    """Drop path (stochastic depth) rate."""


@dataclass
class TapsConfig:
    """Pairs of blocks whose tokens are compared; by default the first four and the last four."""

    student: str | list[int] | None = None
    """Student blocks to compare, counted from 0: 0,1,10,11; the first four and the last four if not given."""
    teacher: str | list[int] | None = None
    """Teacher blocks that these are compared with, as many."""


@dataclass
class TeacherConfig:
    """Teacher and losses."""

    teacher: str = ""
    """timm name, folder of a run, local-dir:PATH or hf-hub:NAME; no teacher if not given."""
    teacher_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of timm.create_model, e.g. `img_size=256`; the teacher gets images of its own size."""
    teacher_weights: str = "pretrained"
    """`pretrained` (timm's), a safetensors or PyTorch file, or `none` (random, for a dry run)."""
    teacher_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the teacher's weights and computation; float16 needs a GPU."""
    teacher_shard: bool = False
    """Shard the teacher's weights over the processes (FSDP2)."""
    losses: dict[str, float | dict[str, Any]] = field(default_factory=dict)
    """Loss weights (`--losses.whole 4`) and options (`--losses.soft.temperature 2`). Giving any replaces the defaults:
    soft 1 and whole 4 with a teacher, else ce 1; with gates, sparsity 0.005 and similarity 1 besides."""
    reduction: Reduction = "mean"
    """`mean` over entries and blocks, or `paper`: sums as in arXiv:2107.01378v1."""
    teacher_cache: str = ""
    """Folder that caches teacher outputs, for other runs with the same data and seed."""
    teacher_cache_size: float = 16.0
    """Largest size of that folder, GiB."""
    relations: Literal["global", "local"] = "global"
    """Relate images to those of all processes (global) or of the same process (local)."""
    taps: TapsConfig = field(default_factory=TapsConfig)
    """Blocks to compare."""


@dataclass
class OptimConfig:
    """Optimizer, schedule and precision (timm's names and meanings)."""

    epochs: int = 300
    """Epochs, warm-up included."""
    opt: str = "adamw"
    """timm optimizer."""
    opt_eps: float | None = None
    """Optimizer epsilon; the optimizer's default if not given."""
    opt_betas: list[float] | None = None
    """Optimizer betas; the optimizer's default if not given."""
    momentum: float = 0.9
    """Optimizer momentum."""
    weight_decay: float = 0.05
    """Weight decay; not applied to biases and norms."""
    clip_grad: float | None = None
    """Clip the gradient norm to this value; no clipping if not given."""
    lr: float | None = None
    """Learning rate; lr_base x global batch size / lr_base_size if not given."""
    lr_base: float = 5e-4
    """Learning rate for a batch of lr_base_size."""
    lr_base_size: int = 512
    """Global batch size that lr_base refers to."""
    sched: str = "cosine"
    """timm learning rate schedule, except plateau."""
    min_lr: float = 1e-5
    """Final learning rate of the schedule."""
    warmup_lr: float = 1e-6
    """Initial learning rate of the warm-up."""
    warmup_epochs: int = 5
    """Warm-up epochs, part of --epochs."""
    grad_accum_steps: int = 1
    """Batches to accumulate gradients over before an optimizer step."""
    amp: bool = False
    """Use automatic mixed precision."""
    amp_dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """Data type of mixed precision; float16 needs a GPU."""
    grad_checkpointing: bool = False
    """Recompute the student's blocks in the backward pass to save memory."""
    compile: bool = False
    """Compile student and teacher with torch.compile."""
    compile_backend: str = "inductor"
    """Backend of torch.compile."""
    model_ema: bool = False
    """Track and validate an exponential moving average (EMA) of the weights."""
    model_ema_decay: float = 0.9998
    """EMA decay."""
    model_ema_warmup: bool = False
    """Warm up the EMA decay from 0."""


@dataclass
class GrowConfig:
    """Growth: training starts with a smaller network that grows to the model's full size."""

    depth: str | list[Any] | None = None
    """Depth at each stage, up to the model's own: 6,12; for models with several stages 2-2-2-2,2-2-6-2."""
    width: str | list[Any] | None = None
    """Width at each stage, likewise: 384,768; channels of a ResNet: 32-64-128-256,64-128-256-512."""
    at: str | list[int] | None = None
    """First epoch of each stage, e.g. 0,150; stages of equal length if not given."""
    depth_operator: str = "insert"
    """How blocks are added; `isometry list operators` describes the choices."""
    width_operator: str = "duplicate"
    """How units are added, likewise."""
    optimizer: Literal["carry", "reset"] = "carry"
    """Carry the optimizer's state over with the weights, or reset it (as published)."""
    lr: Literal["continue", "restart"] = "continue"
    """Continue one learning rate schedule over the run, or restart it, with warm-up, at each stage."""
    weight_decay: Literal["constant", "depth"] = "constant"
    """Constant weight decay, or scaled by each stage's fraction of the full depth."""
    ema: Literal["restart", "grow"] = "restart"
    """Restart the EMA from the grown model, or grow it too."""

    @property
    def wanted(self) -> bool:
        """Whether the run grows."""
        return self.depth is not None or self.width is not None


@dataclass
class PruneConfig:
    """Channel pruning: by gates for each image, or for all images."""

    keep_rate: float | None = None
    """Fraction of each layer's channels kept for the average image at the end, above 0 and at most 1."""
    settle: float = 0.25
    """Final fraction of the epochs that trains at that keep rate; 0 as published."""
    method: Literal["gates", "l1"] = "gates"
    """Gates for each image (ManiDP), or the baseline: remove filters of small L1 norm before training."""
    group: int = 1
    """Number of neighbouring channels that share a gate."""
    compact: bool = False
    """Remove channels that no training image uses after training."""
    from_scratch: bool = False
    """Allow pruning of an untrained network."""

    @property
    def wanted(self) -> bool:
        """Whether the run prunes."""
        return self.keep_rate is not None


@dataclass
class RunConfig(ModelConfig, TeacherConfig, DataConfig, OptimConfig):
    """Run; the resolved options are saved as `config.yaml` in its folder."""

    grow: GrowConfig = field(default_factory=GrowConfig)
    """Growth."""
    prune: PruneConfig = field(default_factory=PruneConfig)
    """Pruning."""
    out: str = ""
    """Output folder."""
    seed: int = 42
    """Random seed."""
    device: str = ""
    """cpu, cuda, cuda:1, ...; a GPU if available if not given."""
    log_interval: int = 50
    """Steps between logged losses; each logging synchronizes the device."""
    recovery_interval: int = 0
    """Steps between checkpoints within an epoch (0: only at the end of epochs)."""
    log: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)
    """Log scalars and the report's figures to tensorboard, wandb (Weights & Biases), or both."""
    resume: bool = False
    """Resume the run in --out."""


ALIASES = {
    "student": "model",
    "student_kwargs": "model_kwargs",
    "b": "batch_size",
    "j": "workers",
    "keep_rate": "prune.keep_rate",
    "compact": "prune.compact",
    "from_scratch": "prune.from_scratch",
}
"""Aliases of options, on the command line and in recipes."""

FREE_ON_RESUME = (
    frozenset({"resume", "out", "device", "workers", "pin_mem", "log_interval", "recovery_interval", "log"})
    | {"teacher_shard", "teacher_cache", "teacher_cache_size", "grad_checkpointing"}
    | {"batch_size"}  # follows from the global batch size, which must not change
)
"""Options that do not change what a run computes, so they may differ when it resumes."""


def canonical(name: str) -> str:
    """The canonical name of an option: ``batch-size`` and ``b`` -> ``batch_size``, ``student`` -> ``model``."""
    head, dot, rest = name.partition(".")
    head = head.replace("-", "_")
    return ALIASES.get(head, head) + dot + rest
