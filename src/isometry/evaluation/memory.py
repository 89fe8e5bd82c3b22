"""Memory of a network: weights, and peak memory of a forward pass."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


def weight_bytes(network: nn.Module) -> int:
    """Bytes of a network's parameters and buffers, each storage once."""
    tensors = (*network.parameters(), *network.buffers())
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


@torch.no_grad()
def pass_bytes(run: Callable[[Tensor], object], images: Tensor) -> int:
    """Peak bytes that a forward pass allocates through torch's allocator, its output included.

    Weights, ``images`` and the kernel libraries' own buffers (oneDNN's scratch space) are excluded. On the CPU it is
    computed from the allocator's record of every block, so exact and reproducible; on a GPU it is the allocator's peak,
    in blocks of 512 bytes. ``run`` has been warmed up at the size of ``images`` (B, C, H, W).
    """
    if images.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(images.device)
        before = torch.cuda.memory_allocated(images.device)
        run(images)
        torch.cuda.synchronize(images.device)
        return torch.cuda.max_memory_allocated(images.device) - before
    with _quiet_profiler(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        answer = run(images)
    del answer
    return allocator_peak(recorded)


def allocator_peak(recorded: profile) -> int:
    """Peak bytes allocated during a recorded profile."""
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # type: ignore[attr-defined]
        peak = max(peak, held)
    return peak


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """Silences the profiler's C++ library, which writes to file descriptor 2 directly."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
