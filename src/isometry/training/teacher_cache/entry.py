"""One file of a teacher cache: the teacher's outputs for one batch.

A safetensors file of ``logits`` and of ``tokens.BLOCK.ROWSxCOLUMNS``; its metadata has a checksum of each tensor, over
its name, dtype, shape and bytes, and ``seen``, a fingerprint of the images. Nothing is unpickled.
Shapes: B images, K classes, k = ``KEPT`` classes, N tokens of C channels.
"""

import math
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from isometry.files import permit_as_umask, random_path, refuse_link
from isometry.models.taps import Grid
from isometry.models.teacher import TeacherOutput

Entry = dict[str, Tensor]
"""The tensors of a file by name."""

KEPT = 100
"""Logits stored of an image: the largest, or all if there are no more classes."""

SAMPLED = 2**16
"""Numbers that a fingerprint is computed from."""

LOGITS = frozenset({"logits", "classes", "rest", "num_classes"})
"""The tensors that logits are stored as; the last three only if some logits are left out."""

UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, RuntimeError, AttributeError)
"""Exceptions of reading a damaged file."""


def token_name(block: int, grid: Grid) -> str:
    """The name of a block's tokens on a grid."""
    return f"tokens.{block}.{grid[0]}x{grid[1]}"


def pack(output: TeacherOutput, grids: dict[int, Grid]) -> Entry:
    """The tensors to store of an output, with the tokens of the blocks in ``grids`` (rows and columns, by block)."""
    tokens = {token_name(block, grid): output.tokens[block] for block, grid in grids.items()}
    return _pack_logits(output.logits) | tokens


def unpack(entry: Entry, grids: dict[int, Grid]) -> TeacherOutput:
    """The output in an entry.

    Up to k classes it is the one that was packed, bit for bit and in its dtype. Of more, the k largest logits are
    the teacher's, in float32, and the others of an image are equal, with their original log-sum-exp: at temperature 1
    the k probabilities, the sum of the others and the argmax are exact, and the differences between the others are
    lost. At higher temperatures the others' probability is too large, at lower ones too small.
    """
    tokens = {block: entry[token_name(block, grid)] for block, grid in grids.items()}
    return TeacherOutput(_unpack_logits(entry), tokens)


def _pack_logits(logits_BK: Tensor) -> Entry:
    classes = logits_BK.shape[1]
    if classes <= KEPT:
        return {"logits": logits_BK}
    logits_BK = logits_BK.float()
    top_Bk, index_Bk = logits_BK.topk(KEPT, dim=1)
    rest_B1 = logits_BK.scatter(1, index_Bk, -math.inf).logsumexp(1, keepdim=True)
    small = torch.int16 if classes <= 2**15 else torch.int32
    return {
        "logits": top_Bk,
        "classes": index_Bk.to(small),
        "rest": rest_B1 - math.log(classes - KEPT),
        "num_classes": torch.tensor(classes),
    }


def _unpack_logits(entry: Entry) -> Tensor:
    if "classes" not in entry:
        return entry["logits"]
    whole_BK = entry["rest"].repeat(1, int(entry["num_classes"]))
    return whole_BK.scatter_(1, entry["classes"].long(), entry["logits"])


def fingerprint(input_BCHW: Tensor) -> str:
    """A checksum of images, over all numbers if there are few, else over evenly spaced ones.

    Images with other augmentation, mixing or erasing have another one, unless the change is smaller than the spacing.
    """
    # Odd, so that all columns of an image with an even width are sampled.
    spacing = input_BCHW.numel() // SAMPLED | 1
    sample = input_BCHW.detach().reshape(-1)[::spacing].cpu()
    return checksum("images", sample, zlib.crc32(str(tuple(input_BCHW.shape)).encode()))


def checksum(name: str, tensor: Tensor, start: int = 0) -> str:
    """CRC-32 of a tensor on the CPU with its name, dtype and shape: against damage, not against forgery."""
    head = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
    return f"{zlib.crc32(raw(tensor), zlib.crc32(head.encode(), start)):08x}"


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU; not copied if it is contiguous."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_entry(path: Path, entry: Entry, seen: str, key: int) -> None:
    """Writes an entry atomically, with ``seen``, the fingerprint of its images; creates its folder.

    It is not flushed to the disk: one that a power failure damages is found by its checksums and computed again. The
    ``key`` of the cache is part of the checksums, so that a file of another cache counts as damaged.

    Raises:
        OSError, SafetensorError: the disk is full, or can't be written.
        UserError: its folder is a link.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in entry.items()}
    facts = {"seen": seen} | {name: checksum(name, tensor, key) for name, tensor in stored.items()}
    refuse_link(path.parent).mkdir(parents=True, exist_ok=True)
    # A unique name, because other runs may fill the same cache.
    fresh = random_path(path)
    try:
        save_file(stored, fresh, metadata=facts)
        permit_as_umask(fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def read_entry(path: Path, names: frozenset[str] | None, key: int, device: torch.device) -> tuple[str, Entry]:
    """The fingerprint and the tensors of an entry, those of ``names`` that it has (None: all), all verified.

    Raises:
        FileNotFoundError: there is no such entry.
        one of ``UNREADABLE``: it is damaged, or of another cache.
    """
    with safe_open(path, framework="pt") as file:
        facts, held = file.metadata() or {}, set(file.keys())
        if set(facts) != held | {"seen"} or "logits" not in held:
            raise ValueError("its tensors don't match its metadata")
        entry = {}
        for name in sorted(held if names is None else held & names):
            tensor = file.get_tensor(name)
            if checksum(name, tensor, key) != facts[name]:
                raise ValueError(f"the checksum of {name} doesn't match")
            # Copied out of the mapped file, whose alignment differs: sums may be rounded in another order there.
            entry[name] = tensor.to(device, copy=True)
    return facts["seen"], entry
