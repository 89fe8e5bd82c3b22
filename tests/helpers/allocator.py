"""Memory by the allocator's own record."""

from torch.profiler import ProfilerActivity, profile

from isometry.evaluation.memory import allocator_peak


def peak_of(step) -> int:
    """The most bytes that a function held at once, of those that it allocated."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    return allocator_peak(recorded)
