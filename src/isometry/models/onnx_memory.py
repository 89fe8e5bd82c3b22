"""Script: memory that ONNX Runtime takes to load a file and run a forward pass on zeros, bytes.

Used as ``python -P onnx_memory.py FILE THREADS BATCH CHANNELS HEIGHT WIDTH``. A separate process allocates nothing
else, and ONNX Runtime keeps a pass's memory for the next one, so resident memory afterwards is its peak.
"""

import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.findall(r"^VmRSS:\s*(\d+) kB$", status, re.MULTILINE)[0])


def growth(path: str, threads: int, shape: list[int]) -> int:
    """Increase of resident bytes by loading the file and one pass of float32 images of ``shape`` (B, C, H, W)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    images = np.zeros(shape, dtype=np.float32)
    before = resident_bytes()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: images})
    return resident_bytes() - before


if __name__ == "__main__":
    print(growth(sys.argv[1], int(sys.argv[2]), [int(word) for word in sys.argv[3:]]))
