"""Networks as `isometry bench` writes them."""

from isometry.report.records.data import Row


def speed(size: int, ms: float) -> Row:
    return {
        "batch_size": size,
        "ms": ms,
        "ms_low": 0.9 * ms,
        "ms_high": 1.2 * ms,
        "images_per_s": 1000 * size / ms,
        "peak_bytes": size * 2**20,
        "ratio": 1.0,
    }


def form(name: str, top1: float | None, **times: float) -> Row:
    """Times of one image in ms, by runtime."""
    runtimes = [
        {"runtime": runtime, "speeds": [speed(1, ms), speed(64, 40 * ms)]} for runtime, ms in times.items()
    ]
    judged = {} if top1 is None else {"top1": top1, "top1_part": "test"}
    return {"form": name, "params": 5000, "macs": 10**6, "runtimes": runtimes, "refused": {}} | judged


def network(name: str, *forms: Row) -> Row:
    return {"name": name, "forms": list(forms)}


NETWORKS = [
    network(
        "runs/a_name_that_is_longer_than_there_is_room_for_beside",
        form("dense", 93.2, eager=2, compiled=1.4, onnx=0.9),
        form("masked", 92.9, eager=2.8, compiled=1.6, onnx=1.1),
        form("skipping", 92.9, eager=1.7) | {"refused": {"compiled": "data decides", "onnx": "data decides"}},
    ),
    network("runs/b", form("dense", 93.1, eager=2.05, compiled=1.4, onnx=0.9)),
    network("runs/c", form("dense", 93.15, eager=4, compiled=3.4, onnx=2.9)),
    network("small", form("dense", 71, eager=1.2)),
    network("resnet18", form("dense", None, eager=21, compiled=15, onnx=12)),
    network("resnet34", form("dense", None, eager=22, compiled=15.1, onnx=12.2)),
]
"""Some so alike that their marks lie on each other, others far off, and some without an accuracy."""
