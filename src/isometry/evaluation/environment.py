"""What measured times depend on: device, threads, library versions."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import timm
import torch

import isometry


def versions() -> str:
    """Versions of isometry, Python, torch and timm, in one line."""
    known = {"isometry": isometry.__version__, "Python": platform.python_version()}
    known |= {"torch": torch.__version__, "timm": timm.__version__}
    return ", ".join(f"{name} {version}" for name, version in known.items())


def machine(device: torch.device) -> str:
    """Operating system, architecture, and the GPU if the device is one."""
    host = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return f"{host}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else host


def processor() -> str:
    """Model name of the CPU; its architecture where the system does not provide a name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def environment(device: torch.device) -> dict[str, str]:
    """Device, threads and library versions, by name."""
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
    """:func:`environment` in one line."""
    threads = "1 thread" if found["threads"] == "1" else f"{found['threads']} threads"
    libraries = ("torch", "timm", "onnxruntime", "python")
    versions = ", ".join(f"{name} {found[name]}" for name in libraries if name in found)
    return f"{threads} on {found['device']}; {versions}"


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Sets torch's number of threads inside the block; None leaves it unchanged."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
