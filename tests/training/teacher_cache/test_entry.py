"""One file of the cache: exact and approximate values, detected damage."""

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from helpers.teacher_outputs import check_same
from isometry.models.teacher import TeacherOutput
from isometry.training.teacher_cache import entry as entry_module
from isometry.training.teacher_cache.entry import (
    KEPT,
    LOGITS,
    SAMPLED,
    UNREADABLE,
    fingerprint,
    pack,
    read_entry,
    unpack,
    write_entry,
)

CPU = torch.device("cpu")
GRIDS = {0: (1, 3), 7: (2, 2)}


def answer(classes: int, dtype: torch.dtype = torch.float32, images: int = 3) -> TeacherOutput:
    generator = torch.Generator().manual_seed(classes)
    logits = 4 * torch.randn(images, classes, generator=generator)
    tokens = {b: torch.randn(images, r * c, 5, generator=generator).to(dtype) for b, (r, c) in GRIDS.items()}
    return TeacherOutput(logits.to(dtype), tokens)


def stored(taught: TeacherOutput, path: Path) -> TeacherOutput:
    write_entry(path, pack(taught, GRIDS), "images", 7)
    seen, entry = read_entry(path, None, 7, CPU)
    assert seen == "images"
    return unpack(entry, GRIDS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("classes", [1, 10, KEPT])
def test_up_to_a_hundred_classes_all_logits_are_exact(tmp_path: Path, dtype: torch.dtype, classes: int):
    taught = answer(classes, dtype)
    check_same(stored(taught, tmp_path / "entry"), taught)


def test_values_that_are_not_finite_are_kept(tmp_path: Path):
    taught = answer(10)
    taught.logits[0, :3] = torch.tensor([math.inf, -math.inf, -0.0])
    taught.tokens[7][1] = math.nan
    found = stored(taught, tmp_path / "entry")
    for ours, theirs in ((found.logits, taught.logits), (found.tokens[7], taught.tokens[7])):
        assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


def rest_of(probabilities_BK: Tensor, kept_BK: Tensor) -> Tensor:
    return probabilities_BK.masked_fill(kept_BK, 0).sum(1)


@pytest.mark.parametrize("classes", [KEPT + 1, 1000, 2**15, 2**15 + 1])
def test_of_more_classes_the_largest_probabilities_are_exact(tmp_path: Path, classes: int):
    taught = answer(classes)
    found = stored(taught, tmp_path / "entry").logits
    assert found.shape == taught.logits.shape
    wanted = taught.logits.double().softmax(1)
    kept = torch.zeros_like(wanted).scatter_(1, taught.logits.topk(KEPT).indices, 1).bool()
    assert torch.equal(found[kept], taught.logits[kept])
    torch.testing.assert_close(found.double().softmax(1)[kept], wanted[kept], rtol=1e-5, atol=0)
    torch.testing.assert_close(
        rest_of(found.double().softmax(1), kept), rest_of(wanted, kept), rtol=1e-5, atol=0
    )
    assert torch.equal(found.argmax(1), taught.logits.argmax(1))
    assert (found.masked_fill(kept, 0).sort(1).values.diff(dim=1) != 0).sum() <= len(found)


def test_other_temperatures_misjudge_the_rest_in_a_known_direction():
    taught = answer(1000)
    found = unpack(pack(taught, GRIDS), GRIDS).logits
    kept = torch.zeros_like(found).scatter_(1, taught.logits.topk(KEPT).indices, 1).bool()
    for temperature, sign in ((2.0, 1), (0.5, -1)):
        ours, theirs = ((x.double() / temperature).softmax(1) for x in (found, taught.logits))
        assert (sign * (rest_of(ours, kept) - rest_of(theirs, kept)) > 0).all()


def test_what_was_packed_once_is_packed_the_same(tmp_path: Path):
    """The answer of the run that asks and of the one that reads are the same, whatever is left out."""
    taught = answer(1000, torch.bfloat16)
    check_same(stored(taught, tmp_path / "entry"), unpack(pack(taught, GRIDS), GRIDS))


def test_a_tensor_that_is_not_in_one_piece_is_stored_as_it_reads(tmp_path: Path):
    taught = answer(10)
    turned = taught._replace(logits=taught.logits.t().contiguous().t())
    assert not turned.logits.is_contiguous()
    check_same(stored(turned, tmp_path / "entry"), taught)


def test_only_the_named_tensors_are_read(tmp_path: Path):
    write_entry(tmp_path / "entry", pack(answer(10), GRIDS), "images", 7)
    _, entry = read_entry(tmp_path / "entry", LOGITS | {"tokens.7.2x2", "tokens.9.2x2"}, 7, CPU)
    assert entry.keys() == {"logits", "tokens.7.2x2"}


# --- damage


def test_no_changed_byte_and_no_cut_goes_unnoticed(tmp_path: Path):
    taught = answer(KEPT + 1, torch.bfloat16, images=1)
    path, copy = tmp_path / "entry", tmp_path / "copy"
    write_entry(path, pack(taught, GRIDS), "images", 7)
    whole = path.read_bytes()

    def seen_in(content: bytes) -> str | None:
        copy.write_bytes(content)
        try:
            return read_entry(copy, LOGITS | {"tokens.0.1x3", "tokens.7.2x2"}, 7, CPU)[0]
        except UNREADABLE:
            return None

    assert seen_in(whole) == "images"
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(header), *range(header, len(whole), 7)]
    assert {seen_in(whole[:length]) for length in places} == {None}
    flipped = [seen_in(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]) for at in places]
    # A change within the fingerprint makes it that of other images.
    assert "images" not in flipped
    assert sum(seen is not None for seen in flipped) <= len("images")


@pytest.mark.parametrize(
    ("before", "after"), [(b'"shape":[3,4,5]', b'"shape":[3,5,4]'), (b'"dtype":"BF16"', b'"dtype":"F16" ')]
)
def test_a_header_that_fits_the_file_and_not_the_tensor_is_found(tmp_path: Path, before: bytes, after: bytes):
    write_entry(tmp_path / "entry", pack(answer(10, torch.bfloat16), GRIDS), "images", 7)
    content = (tmp_path / "entry").read_bytes()
    assert before in content
    (tmp_path / "entry").write_bytes(content.replace(before, after))
    with pytest.raises(UNREADABLE, match="checksum"):
        read_entry(tmp_path / "entry", None, 7, CPU)


def test_an_entry_of_another_cache_counts_as_damaged(tmp_path: Path):
    write_entry(tmp_path / "entry", pack(answer(10), GRIDS), "images", 7)
    with pytest.raises(UNREADABLE, match="checksum of logits"):
        read_entry(tmp_path / "entry", None, 8, CPU)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("by", [pickle.dump, torch.save])
def test_a_pickle_in_its_place_is_never_opened(tmp_path: Path, by: Any):
    with (tmp_path / "entry").open("wb") as file:
        by(Payload(tmp_path / "executed"), file)
    with pytest.raises(UNREADABLE):
        read_entry(tmp_path / "entry", None, 7, CPU)
    assert not (tmp_path / "executed").exists()


def test_a_write_that_fails_leaves_the_entry_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "entry"
    write_entry(path, pack(answer(10), GRIDS), "before", 7)

    def half(tensors: dict[str, Tensor], name: Path, metadata: dict[str, str]) -> None:
        name.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(entry_module, "save_file", half)
    with pytest.raises(SafetensorError):
        write_entry(path, pack(answer(10), GRIDS), "after", 7)
    assert read_entry(path, None, 7, CPU)[0] == "before"
    assert list(tmp_path.iterdir()) == [path]


# --- fingerprints


def erased(x: Tensor) -> Tensor:
    x[0, :, 2:5, 3:6] = 0
    return x


CHANGES = {
    "flipped": lambda x: x.flip(-1),
    "one image flipped": lambda x: torch.cat([x[:1].flip(-1), x[1:]]),
    "mixed": lambda x: 0.9 * x + 0.1 * x.flip(0),
    "in another order": lambda x: x.roll(1, 0),
    "erased": erased,
    "shifted": lambda x: x.roll(1, -1),
    "of other channels": lambda x: x.reshape(len(x), -1, *x.shape[-2:]).repeat(1, 2, 1, 1),
    "fewer": lambda x: x[:-1],
    "in another shape": lambda x: x.transpose(-1, -2).reshape(len(x), -1, 4, 16),
    "other by a rounding": lambda x: x * (1 + 1e-6),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_images_have_another_fingerprint(change: str):
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert fingerprint(images) == fingerprint(images.clone())
    assert fingerprint(CHANGES[change](images.clone())) != fingerprint(images)


@pytest.mark.parametrize("change", ["flipped", "one image flipped", "mixed", "in another order", "shifted"])
def test_fingerprints_of_large_images_sample_all_parts(change: str):
    images = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert images.numel() > 10 * SAMPLED
    assert fingerprint(CHANGES[change](images.clone())) != fingerprint(images)
    boxed = images.clone()
    boxed[3, :, 100:130, 50:80] = 0
    assert fingerprint(boxed) != fingerprint(images)
    for column in (100, 101):
        other = images.clone()
        other[..., column] += 1
        assert fingerprint(other) != fingerprint(images)


def test_a_fingerprint_is_of_the_values_not_of_the_layout():
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert fingerprint(images.to(memory_format=torch.channels_last)) == fingerprint(images)
