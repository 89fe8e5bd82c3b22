"""Notes on a data set: counts by reason, with paths as they lie in it."""

from pathlib import Path

import pytest

from isometry.data.dense.findings import Findings


@pytest.mark.parametrize("root", ["/data/set", "data/../data/set", "/data/set/"])
def test_paths_in_the_data_set_are_relative_to_it(root):
    folder = Path(root)
    findings = Findings(folder, folder / "annotations/train.json")
    findings.add("boxes left out", f"annotation 3 of {folder / 'a.json'}")
    findings.add("boxes left out", "another", 2)
    findings.add("masks left out", f"{folder}2/b.png ({folder / 'c.png'})")
    findings.add("nothing", "x", 0)
    findings.say("the test part is left out")
    assert findings.reasons == [
        "boxes left out: 3, e.g. annotation 3 of a.json",
        f"masks left out: 1, e.g. {folder}2/b.png (c.png)",
        "the test part is left out",
    ]
    assert findings.notes == [f"annotations/train.json: {reason}" for reason in findings.reasons]
    assert findings.count("boxes left out") == 3


@pytest.mark.parametrize("root", [".", "/"])
def test_roots_that_no_path_repeats_change_nothing(root):
    findings = Findings(Path(root), "train")
    findings.add("pictures left out", "a./b.png of /c.png")
    assert findings.notes == ["train: pictures left out: 1, e.g. a./b.png of /c.png"]
