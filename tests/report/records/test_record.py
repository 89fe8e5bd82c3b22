"""What a report was made of, written and read back: the same to the last bit, or refused with a reason."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.epoch_times import ROWS
from helpers.growth_stages import GROWN
from helpers.pruning_rows import PRUNED
from isometry.report.page import render_report
from isometry.report.records.data import ReportData
from isometry.report.records.record import (
    ARRAYS,
    RECORD,
    RecordError,
    _checksum,
    has_record,
    read_record,
    write_record,
)


@pytest.fixture
def whole(full) -> ReportData:
    return replace(full, stages=GROWN, pruning=PRUNED, times=ROWS)


def forge(folder, change) -> None:
    """Changes the record as somebody would who can compute its checksum."""
    path = folder / RECORD
    told = json.loads(path.read_text())
    change(told["report"])
    told["checksum"] = _checksum(told["report"], (folder / ARRAYS).read_bytes())
    path.write_text(json.dumps(told))


def test_the_page_can_be_drawn_again_to_the_last_character(whole, tmp_path):
    assert not has_record(tmp_path)
    write_record(tmp_path, whole)
    assert has_record(tmp_path)
    assert render_report(read_record(tmp_path)) == render_report(whole)


def test_arrays_come_back_with_their_bits_and_types(whole, tmp_path):
    write_record(tmp_path, whole)
    found = read_record(tmp_path)
    for ours, theirs in zip(found.relations, whole.relations, strict=True):
        for name in ("teacher", "before", "after"):
            assert getattr(ours, name).dtype == getattr(theirs, name).dtype
            assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()
    assert found.pruning.hard.examples[0].pixels.dtype == np.uint8
    assert found.marks == whole.marks
    assert found.facts == whole.facts
    assert replace(found.pruning, easy=None, hard=None, maps=[]) == replace(
        whole.pruning, easy=None, hard=None, maps=[]
    )


def test_what_is_empty_or_not_finite_comes_back_too(tmp_path):
    nan = float("nan")
    sparse = ReportData("a run", epochs=[{"epoch": 1, "val/top1": nan, "train/loss": None}])
    write_record(tmp_path, sparse)
    found = read_record(tmp_path)
    assert (found.cka_before, found.pruning, found.relations) == (None, None, [])
    assert np.isnan(found.epochs[0]["val/top1"])


def test_the_files_are_plain(whole, tmp_path):
    write_record(tmp_path, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, ARRAYS]
    assert json.loads((tmp_path / RECORD).read_text())["report"]["title"] == whole.title
    assert load_file(tmp_path / ARRAYS)["relations.0.teacher"].shape == whole.relations[0].teacher.shape


@pytest.mark.parametrize("file", [RECORD, ARRAYS])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "empty"])
def test_damage_is_named(whole, tmp_path, file, damage):
    write_record(tmp_path, whole)
    path = tmp_path / file
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[-40] ^= 1
        path.write_bytes({"cut": content[:-50], "changed": content, "empty": b""}[damage])
    with pytest.raises(RecordError, match=r"report\.(json|safetensors): "):
        read_record(tmp_path)


def test_arrays_of_another_save_are_noticed(whole, tmp_path):
    write_record(tmp_path, whole)
    old = (tmp_path / RECORD).read_bytes()
    write_record(tmp_path, replace(whole, cka_after=whole.cka_after / 2))
    (tmp_path / RECORD).write_bytes(old)
    with pytest.raises(RecordError, match="checksum"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda report: report.update(title=3), r"report\.json: title: "),
        (lambda report: report.update(facts=[["a"]]), r"facts\.0\.1: "),
        (lambda report: report.update(surprise=1), "surprise: "),
        (lambda report: report.pop("title"), "title: "),
        (lambda report: report.update(models=[{"role": "student"}]), r"models\.0\.model: "),
        (lambda report: report.update(models=[{"model": "a", "top1": {"b": 1}}]), r"models\.0\.top1: "),
        (lambda report: report.update(stages=[{"stage": 1}]), r"stages\.0\.model: "),
        (lambda report: report.update(times=[{"steps": 1, "data": "x"}]), r"times\.0\.data: "),
        (lambda report: report.update(epochs={"epoch": 1}), "epochs: "),
        (lambda report: report.update(relations="relations.0"), "relations: "),
        (lambda report: report["relations"][0].update(teacher="../teacher"), r"relations\.0\.teacher: names no matrix"),
        (lambda report: report["relations"][0].update(teacher="cka_before"), "not \\(N, N\\)"),
        (lambda report: report.update(student_blocks=["1"]), "block labels"),
        (lambda report: report["pruning"]["forms"][0].pop("speeds"), r"pruning\.forms\.0\.speeds: "),
        (lambda report: report["pruning"]["forms"][0]["speeds"].pop(), r"pruning\.forms: not all"),
        (lambda report: report["pruning"]["easy"].update(shares=[1.0]), "shares of 1 layers"),
        (lambda report: report["pruning"]["maps"][0].update(gap="x"), r"maps\.0\.gap: "),
        (
            lambda report: report["pruning"]["easy"]["examples"][0].update(pixels="cka_before"),
            r"examples\.0\.pixels: ",
        ),
    ],
)  # fmt: skip
def test_what_fits_no_report_is_refused_though_its_checksum_is_right(whole, tmp_path, change, why):
    write_record(tmp_path, whole)
    forge(tmp_path, lambda report: None)
    read_record(tmp_path)
    forge(tmp_path, change)
    with pytest.raises(RecordError, match=why):
        read_record(tmp_path)


def test_a_version_of_tomorrow_is_not_guessed_at(whole, tmp_path):
    write_record(tmp_path, whole)
    told = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps(told | {"version": 2}))
    with pytest.raises(RecordError, match="another version"):
        read_record(tmp_path)


class Trap:
    """Unpickling this fails the test."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_a_pickle_is_never_opened(whole, tmp_path):
    write_record(tmp_path, whole)
    (tmp_path / ARRAYS).write_bytes(pickle.dumps(Trap()))
    forge(tmp_path, lambda report: None)
    with pytest.raises(RecordError):
        read_record(tmp_path)


def test_arrays_of_other_kinds_are_refused(whole, tmp_path):
    write_record(tmp_path, whole)
    arrays = load_file(tmp_path / ARRAYS)
    save_file(arrays | {"relations.0.teacher": np.ones((3, 3), np.int64)}, tmp_path / ARRAYS)
    forge(tmp_path, lambda report: None)
    with pytest.raises(RecordError, match="names no matrix"):
        read_record(tmp_path)
