"""Losses, scores and weights of short runs, held to recorded ones: the same bits on the machine that recorded them.

``python tests/test_golden.py --record`` writes the file anew, for a change that is meant to change results.
"""

import hashlib
import importlib.metadata
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from helpers.runs import run

GOLDEN = Path(__file__).parent / "golden" / "losses.json"

IMAGES = (
    "--dataset digits --in-chans 1 --batch-size 50 --validation-batch-size 500 --workers 0 "
    "--scale 0.6 1 --ratio 0.8 1.25 --hflip 0 --color-jitter 0 --crop-pct 1 "
    "--epochs 2 --warmup-epochs 0 --lr 3e-3 --device cpu --seed 3"
)
"""18 steps an epoch."""

VIT = "vit_tiny_patch16_224"
VIT_KWARGS = "patch_size=4 embed_dim=16 depth=2 num_heads=2 mlp_ratio=2"
DEEPER_KWARGS = "patch_size=4 embed_dim=16 depth=4 num_heads=2 mlp_ratio=2"
TEACHER = (
    "--teacher cait_xxs24_224 --teacher-weights none --teacher-kwargs img_size=16 patch_size=4 embed_dim=32 depth=2 "
    "depth_token_only=1 num_heads=2 init_values=0.1"
)

RUNS = {
    "distill": f"distill {IMAGES} --img-size 16 --student {VIT} --student-kwargs {VIT_KWARGS} {TEACHER} "
    "--losses.soft 1 --losses.soft.temperature 2 --losses.whole 2 --losses.intra 1 --losses.inter 1 "
    "--losses.random 1 --losses.random.k 40 --losses.embedding 0.5 --losses.ce 1 "
    "--mixup 0.2 --reprob 0.25 --smoothing 0.1 --drop-path 0.1 --clip-grad 1",
    "grow": f"train {IMAGES} --img-size 8 --model {VIT} --model-kwargs {DEEPER_KWARGS} --losses.ce 1 "
    "--grow.depth 2,4 --grow.width 8,16 --grow.at 0,1 --grow.optimizer carry --grow.ema grow "
    "--model-ema --model-ema-decay 0.9 --model-ema-warmup false",
    "prune": f"train {IMAGES} --img-size 16 --model cifar_resnet20 --model-kwargs layers=[1,1,1] "
    "channels=[4,8,8] --opt sgd --lr 0.1 --epochs 3 --warmup-epochs 1 "
    "--losses.ce 1 --losses.sparsity 10 --losses.similarity 1 --prune.keep-rate 0.5 --prune.from-scratch",
    "grow_distill": f"distill {IMAGES} --img-size 8 --student {VIT} --student-kwargs {DEEPER_KWARGS} {TEACHER} "
    "--losses.soft 1 --losses.whole 4 --losses.embedding 0.5 --grow.depth 2,4 --grow.at 0,1",
}
"""Command lines, without ``--out``."""

CLOSE = 1e-4
"""Largest relative difference of a mean loss of the first epoch on another machine or with other versions.

Other vector instructions moved these losses by 6e-6 at most; a loss that is computed otherwise moves by more than this.
"""


def results(name: str, folder: Path) -> dict[str, Any]:
    """Metrics, results and weights digest of a run in a process of its own, on one thread."""
    out = folder / "run"
    ended = run(*RUNS[name].split(), "--out", str(out), said=folder / "said")
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    figures = [{key: row[key] for key in ("params", "macs", "top1")} for row in summary]
    return {"metrics": rows, "results": figures, "weights": digest(out / "student" / "model.safetensors")}


def digest(weights: Path) -> str:
    """SHA-256 of all tensors with their names, types and shapes."""
    found = hashlib.sha256()
    for name, tensor in sorted(load_file(weights).items()):
        found.update(f"{name} {tensor.dtype} {tensor.shape} ".encode())
        found.update(tensor.tobytes())
    return found.hexdigest()


def fingerprint() -> dict[str, Any]:
    """What the last bits of a result depend on besides the package: processor, kernels and versions."""
    libraries = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")
    return {
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
        "versions": {name: importlib.metadata.version(name) for name in libraries},
    }


def processor() -> dict[str, Any]:
    """Vendor, model, cache and vector instructions, which libraries choose their kernels and block results by."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {"model name": platform.processor(), "machine": platform.machine()}
    pairs = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    told = {key.strip(): value.strip() for key, _, value in pairs}
    vectors = sorted(flag for flag in told.get("flags", "").split() if flag.startswith(("avx", "amx", "fma")))
    names = ("vendor_id", "model name", "cpu family", "model", "stepping", "cache size")
    return {name: told.get(name, "") for name in names} | {"vectors": vectors}


def first_losses(result: dict[str, Any]) -> dict[str, float]:
    """Mean losses of the first epoch.

    Elsewhere rounding differs from the first step on, and grows with each step: later epochs, and scores, which
    jump when one image changes its class, say nothing there.
    """
    return {key: value for key, value in result["metrics"][0].items() if key.startswith("train/")}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_computes_what_was_recorded(name, tmp_path):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found, wanted = results(name, tmp_path), golden["runs"][name]
    assert first_losses(found) == pytest.approx(first_losses(wanted), rel=CLOSE)
    if fingerprint() == golden["fingerprint"]:
        assert found == wanted


def record() -> None:
    """Writes the golden file from the code and the machine that run this."""
    runs = {}
    for name in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            runs[name] = results(name, Path(folder))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({"fingerprint": fingerprint(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"]:
        sys.exit("usage: python tests/test_golden.py --record")
    record()
