"""Device, threads and versions that measured times depend on."""

import platform
from pathlib import Path

import pytest
import torch

from isometry.evaluation.environment import environment, environment_text, limited_threads, processor


def test_the_processor_is_named_by_the_system(monkeypatch):
    cpuinfo = Path("/proc/cpuinfo")
    found = processor()
    assert found
    if cpuinfo.is_file() and "model name" in cpuinfo.read_text(encoding="utf-8"):
        assert f": {found}\n" in cpuinfo.read_text(encoding="utf-8")
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    assert processor() in (platform.processor(), platform.machine())


def test_the_text_has_device_threads_and_versions():
    found = environment(torch.device("cpu"))
    with limited_threads(1):
        text = environment_text(environment(torch.device("cpu")))
    assert text.startswith("1 thread on cpu")
    for library in ("torch", "timm", "python"):
        assert f"{library} {found[library]}" in text
    assert "onnxruntime 1.2" in environment_text(found | {"onnxruntime": "1.2"})


def fail_with(threads: int) -> None:
    with limited_threads(threads):
        raise KeyError(torch.get_num_threads())


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError, match=str(before + 1)):
        fail_with(before + 1)
    assert torch.get_num_threads() == before
    with limited_threads(None):
        assert torch.get_num_threads() == before
