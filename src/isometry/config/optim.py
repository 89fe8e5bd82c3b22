"""Options of the optimizer, schedule and precision."""

from dataclasses import dataclass
from typing import Literal


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
    channels_last: bool = False
    """Keep convolution weights and feature maps in channels-last memory (NHWC)."""
    grad_checkpointing: bool = False
    """Recompute the student's blocks in the backward pass to save memory."""
    compile: bool = False
    """Compile student and teacher with torch.compile."""
    compile_backend: str = "inductor"
    """Backend of torch.compile."""
    model_ema: bool = False
    """Track and validate an exponential moving average (EMA) of the weights, and deliver it where it scores better."""
    model_ema_decay: float = 0.9998
    """EMA decay."""
    model_ema_warmup: bool = True
    """Warm up the EMA decay from 0, so that the average follows the weights in short runs too."""
