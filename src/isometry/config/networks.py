"""Options of the network that is trained, and of its teacher."""

from dataclasses import dataclass, field
from typing import Any, Literal

Reduction = Literal["mean", "paper"]


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
    freeze: bool = False
    """Train the head alone: the weights of the backbone stay as they are, to the last bit."""
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
    """timm name, folder of a run, local-dir:PATH or hf-hub:NAME; transformers:NAME, open_clip:MODEL/TAG,
    torchhub:OWNER/REPOSITORY:NAME or python:MODULE.FUNCTION; no teacher if not given."""
    trust_remote_code: bool = False
    """Run the code of a --teacher of torchhub:, python: or transformers:. Both on the command line only."""
    teacher_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of timm.create_model (or of the library), e.g. `img_size=256`; images are scaled to its size."""
    teacher_pixels: Literal["student", "original"] = "student"
    """What a teacher of larger images sees: the student's, scaled up, or the same crop of the original picture."""
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
