"""What measured times depend on: device, threads, library versions."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import timm
import torch

import isometry


def versions() -> str:
    """Those that a result may depend on."""
    known = {"isometry": isometry.__version__, "Python": platform.python_version()}
    known |= {"torch": torch.__version__, "timm": timm.__version__}
    return ", ".join(f"{name} {version}" for name, version in known.items())


def machine(device: torch.device) -> str:
    """The operating system, the processor's kind, and the GPU where one computes."""
    words = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return f"{words}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else words


def conditions(device: torch.device) -> dict[str, str]:
    """What measured times depend on, by name: device, threads, versions of libraries."""
    if device.type == "cuda":
        where = f"{device} ({torch.cuda.get_device_name(device)})"
    else:
        where = f"{device} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return {
        "device": where,
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
    }


def environment_text(found: Mapping[str, str]) -> str:
    """:func:`conditions` in one line."""
    threads = "1 thread" if found["threads"] == "1" else f"{found['threads']} threads"
    libraries = ("torch", "timm", "onnxruntime", "python")
    versions = ", ".join(f"{name} {found[name]}" for name in libraries if name in found)
    return f"{threads} on {found['device']}; {versions}"


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Torch computes with ``count`` threads inside the block; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
