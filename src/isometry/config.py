"""A run, resolved: flat dataclasses whose fields carry timm's names.

Command line beats ``--config`` YAML beats these defaults.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Reduction = Literal["mean", "paper"]


@dataclass
class DataConfig:
    """Where images come from and how they are augmented (timm's names and meanings)."""

    data_dir: str | None = None
    """Image folder: train/ and val/ (each with one folder per class), or one folder that is split."""
    dataset: str = ""
    """`digits` (embedded), empty for an image folder, or a scheme of timm (torch/..., hfds/..., wds/...)."""
    train_split: str = "train"
    """Name of the training split."""
    val_split: str = "validation"
    """Name of the validation split."""
    val_fraction: float = 0.1
    """Share kept for validation when --data-dir is one folder."""
    class_map: str | None = None
    """File that maps class names to indices (timm's class_map)."""
    dataset_download: bool = False
    """Let torch/ and hfds/ data sets download themselves."""
    skip_bad_images: bool = False
    """Replace unreadable images by their neighbours, count and name them, instead of stopping."""
    batch_size: int = 128
    """Images a batch and process."""
    global_batch_size: int | None = None
    """Images a batch of all processes together; given, each takes its share, whatever --batch-size says."""
    validation_batch_size: int | None = None
    """Images a validation batch; the training batch size if not given."""
    workers: int = 2
    """Data loading processes."""
    pin_mem: bool = False
    """Pin host memory for faster transfers to a GPU."""
    no_aug: bool = False
    """No training augmentation at all."""
    train_crop_mode: str | None = None
    """timm's train-crop-mode: rrc, rkrc or rkrr; or pad: black borders of 1/8 of the side, then a crop (CIFAR)."""
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    """Random resized crop: share of the area."""
    ratio: list[float] = field(default_factory=lambda: [3.0 / 4.0, 4.0 / 3.0])
    """Random resized crop: aspect ratio."""
    hflip: float = 0.5
    """Horizontal flip probability."""
    vflip: float = 0.0
    """Vertical flip probability."""
    color_jitter: float = 0.4
    """Colour jitter strength (not used together with --aa)."""
    aa: str | None = None
    """AutoAugment policy, e.g. rand-m9-mstd0.5-inc1."""
    aug_repeats: int = 0
    """Repeated augmentation: copies of an image in an epoch (0: off)."""
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
    """Probability of mixup or CutMix when either is on."""
    mixup_switch_prob: float = 0.5
    """Probability of CutMix when both are on."""
    mixup_mode: str = "batch"
    """batch, pair or elem."""
    smoothing: float = 0.0
    """Label smoothing."""
    train_interpolation: str = "random"
    """Interpolation of training images."""
    crop_pct: float | None = None
    """Validation crop share; the model's own if not given."""


@dataclass
class ModelConfig:
    """The model that trains (the student, where there is a teacher)."""

    model: str = ""
    """timm name, local-dir:PATH or hf-hub:NAME."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of timm's constructor, e.g. depth, embed_dim, patch_size."""
    pretrained: bool = False
    """Start from timm's pretrained weights (local-dir: and hf-hub: always start from theirs)."""
    initial_checkpoint: str | None = None
    """Start from this file of weights."""
    img_size: int | None = None
    """Side of the square input image, pixels; the model's own if not given."""
    in_chans: int | None = None
    """Input channels: 3 (RGB) or 1 (grey); the model's own if not given."""
    num_classes: int | None = None
    """Classes; the data's (or the teacher's, without labels) if not given. 0: no classifier, labels not used."""
    drop: float = 0.0
    """Dropout rate."""
    drop_path: float = 0.0
    """Stochastic depth rate."""


@dataclass
class TapsConfig:
    """Blocks whose tokens the terms see; pairs in order. By default the first four and the last four."""

    student: str | list[int] | None = None
    """Blocks of the student, from 0; e.g. 0,1,10,11."""
    teacher: str | list[int] | None = None
    """Blocks of the teacher, from 0, as many."""


@dataclass
class TeacherConfig:
    """Who teaches, and what is learned."""

    teacher: str = ""
    """timm name, local-dir:PATH or hf-hub:NAME; empty trains without a teacher."""
    teacher_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of timm's constructor for the teacher, e.g. `img_size=256`; it sees images of its own size."""
    teacher_weights: str = "pretrained"
    """`pretrained` (timm's), a file (safetensors, or what torch loads weights-only), or `none` (dry run)."""
    teacher_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type that the teacher is held and computed in; float16 needs a GPU."""
    teacher_shard: bool = False
    """Spread the teacher's weights over the processes, whole one block at a time (FSDP2)."""
    losses: dict[str, float | dict[str, Any]] = field(default_factory=dict)
    """Terms and weights: `--losses.whole 4`; options as `--losses.soft.temperature 2`. 0 takes a term out."""
    reduction: Reduction = "mean"
    """`mean`: mean over entries, average over blocks. `paper`: sums as in arXiv:2107.01378v1."""
    teacher_cache: str = ""
    """Folder that keeps what the teacher says about each training image, for other runs with the same data and seed."""
    teacher_cache_size: float = 16.0
    """Most that this folder may take, GiB."""
    relations: Literal["global", "local"] = "global"
    """Terms that relate images to each other: over the images of all processes, or each process's own."""
    taps: TapsConfig = field(default_factory=TapsConfig)
    """Blocks whose tokens are compared."""


@dataclass
class OptimConfig:
    """Optimizer, schedule and precision (timm's names and meanings)."""

    epochs: int = 300
    """Passes over the training data, warm-up included."""
    opt: str = "adamw"
    """Any optimizer of timm."""
    opt_eps: float | None = None
    """Optimizer epsilon; the optimizer's own if not given."""
    opt_betas: list[float] | None = None
    """Optimizer betas; the optimizer's own if not given."""
    momentum: float = 0.9
    """Momentum, for optimizers that have one."""
    weight_decay: float = 0.05
    """Weight decay; not for biases and norms."""
    clip_grad: float | None = None
    """Largest gradient norm; no clipping if not given."""
    lr: float | None = None
    """Learning rate; lr_base x global batch / lr_base_size if not given."""
    lr_base: float = 5e-4
    """Learning rate at lr_base_size images a step."""
    lr_base_size: int = 512
    """Batch that lr_base is meant for."""
    sched: str = "cosine"
    """Any schedule of timm that needs no metric."""
    min_lr: float = 1e-5
    """Learning rate at the end."""
    warmup_lr: float = 1e-6
    """Learning rate at the start of the warm-up."""
    warmup_epochs: int = 5
    """Epochs of linear warm-up, within --epochs."""
    grad_accum_steps: int = 1
    """Batches that one optimizer step adds up."""
    amp: bool = False
    """Mixed precision."""
    amp_dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """Mixed precision's type; float16 needs a GPU."""
    grad_checkpointing: bool = False
    """Keep only the blocks' inputs for the backward pass, and compute the student's blocks again there."""
    compile: bool = False
    """torch.compile the student and the teacher."""
    compile_backend: str = "inductor"
    """Backend of torch.compile."""
    model_ema: bool = False
    """Keep and evaluate an exponential moving average of the weights too."""
    model_ema_decay: float = 0.9998
    """Decay of the moving average."""
    model_ema_warmup: bool = False
    """Let the decay grow from 0 in the first steps."""


@dataclass
class GrowConfig:
    """Training that starts on a smaller network and grows to the model's full size on the way."""

    depth: str | list[Any] | None = None
    """Depth of each stage, ending with the model's own: 6,12; a number a stage of the model: 2-2-2-2,2-2-6-2."""
    width: str | list[Any] | None = None
    """Width of each stage, likewise: 384,768; the channels of a ResNet: 32-64-128-256,64-128-256-512."""
    at: str | list[int] | None = None
    """Epochs at which the stages begin, e.g. 0,150; equal segments if not given."""
    depth_operator: str = "insert"
    """How blocks are added: copies of the last ones after each (insert) or at the end (stack), or new identities."""
    width_operator: str = "duplicate"
    """How units are added: as copies that share their outgoing weight, or between the old ones."""
    optimizer: Literal["carry", "reset"] = "carry"
    """The optimizer's moments go along with their weights, or start anew (as published)."""
    lr: Literal["continue", "restart"] = "continue"
    """One schedule over the whole run, or one a stage, warm-up included."""
    weight_decay: Literal["constant", "depth"] = "constant"
    """Or scaled by the stage's share of the full depth."""
    ema: Literal["restart", "grow"] = "restart"
    """The moving average starts anew from the grown model, or grows too."""

    @property
    def wanted(self) -> bool:
        """Whether the run grows."""
        return self.depth is not None or self.width is not None


@dataclass
class PruneConfig:
    """Channels that an image does not need: found by gates, image by image, or cut for all images."""

    keep_rate: float | None = None
    """Share of each layer's channels that the mean image keeps in the end, above 0 and at most 1."""
    settle: float = 0.25
    """Share of the epochs, the last ones, that train at that keep rate; 0 as published."""
    method: Literal["gates", "l1"] = "gates"
    """A gate a channel (ManiDP), or the plain rival: filters of small L1 norm cut before training."""
    group: int = 1
    """Neighbouring channels that share a gate."""
    compact: bool = False
    """Afterwards, cut out the channels that no training image uses."""
    from_scratch: bool = False
    """Prune a network that was never trained."""

    @property
    def wanted(self) -> bool:
        """Whether the run prunes."""
        return self.keep_rate is not None


@dataclass
class RunConfig(ModelConfig, TeacherConfig, DataConfig, OptimConfig):
    """One whole run; `config.yaml` in its folder is this, resolved."""

    grow: GrowConfig = field(default_factory=GrowConfig)
    """Sizes on the way to the model's own."""
    prune: PruneConfig = field(default_factory=PruneConfig)
    """Channels that each image is to do without."""

    out: str = ""
    """Folder of the run."""
    seed: int = 42
    """Seed of everything random."""
    device: str = ""
    """cpu, cuda, cuda:1, ...; a GPU if there is one."""
    log_interval: int = 50
    """Steps between readings of the losses (one device synchronisation each)."""
    recovery_interval: int = 0
    """Steps between saves inside an epoch (0: at epochs' ends only)."""
    log: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)
    """Show scalars and the report's pictures in `tensorboard` or `wandb` (Weights & Biases) too, or in both."""
    log_tensorboard: bool = False
    """The older name of --log tensorboard."""
    log_wandb: bool = False
    """The older name of --log wandb."""
    resume: bool = False
    """Go on with the run that is in --out."""


ALIASES = {
    "student": "model",
    "student_kwargs": "model_kwargs",
    "b": "batch_size",
    "j": "workers",
    "keep_rate": "prune.keep_rate",
    "compact": "prune.compact",
    "from_scratch": "prune.from_scratch",
}
"""Other names of options, on the command line and in recipes."""

FREE_ON_RESUME = (
    frozenset({"resume", "out", "device", "workers", "pin_mem"})
    | {"log_interval", "recovery_interval", "log", "log_tensorboard", "log_wandb"}
    | {"teacher_shard", "teacher_cache", "teacher_cache_size", "grad_checkpointing"}
    # Follows from the global batch, which is not free.
    | {"batch_size"}
)
"""Options that don't change what a run computes, and so may change when it goes on."""


def canonical(name: str) -> str:
    """An option's own spelling: ``batch-size`` and ``b`` -> ``batch_size``, ``student`` -> ``model``."""
    head, dot, rest = name.partition(".")
    head = head.replace("-", "_")
    return ALIASES.get(head, head) + dot + rest
