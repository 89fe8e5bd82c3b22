"""Copies images to a GPU while it computes on the batch before."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

from isometry.data.batch_reader import Batch


def copied_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches, with images on ``device``; elsewhere than on a GPU they are returned as they are.

    A batch is copied on a stream of its own before the batch in front of it is handed out. Copies from pinned memory
    overlap with the computation; see the option ``pin_mem``. Targets and indices stay on the host, where they are
    checked without waiting for the device.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    ahead: tuple[Batch, Any] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            copy = replace(batch, images=batch.images.to(device, non_blocking=True))
            done = stream.record_event()
        if ahead is not None:
            yield _usable(*ahead, device)
        ahead = copy, done
    if ahead is not None:
        yield _usable(*ahead, device)


def _usable(batch: Batch, copied: Any, device: torch.device) -> Batch:
    """The batch, for the current stream, whose next work waits for the copy on the device."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    # Otherwise the allocator could reuse the memory as soon as the copying stream is done with it.
    batch.images.record_stream(current)
    return batch
