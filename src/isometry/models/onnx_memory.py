"""A program: the bytes by which it grows when ONNX Runtime opens a file and makes a pass of zeros.

Used as ``python -P onnx_memory.py FILE THREADS BATCH CHANNELS HEIGHT WIDTH``. In a process of its own nothing else comes
and goes; and since ONNX Runtime keeps what a pass has taken for the next one, what is resident afterwards is its peak.
"""

import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def resident_bytes() -> int:
    """Memory of this process that is in RAM, as Linux counts it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.findall(r"^VmRSS:\s*(\d+) kB$", status, re.MULTILINE)[0])


def growth(path: str, threads: int, shape: list[int]) -> int:
    """Bytes resident after a pass of images of ``shape`` (B, C, H, W), float32, less those before opening the file."""
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
