"""The programs of the pages that find boxes and masks, in PyTorch and in ONNX Runtime: both find the same."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.dense_networks import dense_network
from helpers.pages import DOCS, code_blocks
from isometry.cli.main import main
from isometry.models.dense.saving import save_dense


def program(page):
    """The block of a page that finds boxes."""
    (block,) = (
        each
        for each in code_blocks(DOCS / page)
        if "runs/detector" in each.text and each.language == "python"
    )
    names = {}
    exec(compile(block.text, page, "exec"), names)
    return names


@pytest.mark.parametrize("size", [(150, 70), (61, 90)])
def test_pytorch_and_onnx_find_the_same_boxes_in_a_picture(size, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = dense_network("detect")
    with torch.no_grad():
        # Fewer boxes than torchvision looks at before non-maximum suppression.
        network.fcos.head.classification_head.cls_logits.bias.sub_(2.0)
    save_dense(network, tmp_path / "runs" / "detector" / "model")
    save_dense(dense_network("segment"), tmp_path / "runs" / "masks" / "model")
    assert main(["export", "runs/detector", "--to", "onnx", "--seconds", "0.01"]) == 0
    picture = tmp_path / "photos" / "cat" / "0.png"
    picture.parent.mkdir(parents=True)
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    coarse.resize(size, Image.Resampling.NEAREST).save(picture)
    capsys.readouterr()
    with_torch = program("transfer.md")
    printed = capsys.readouterr().out
    with_onnx = program("ship.md")
    boxes, wanted = (
        [list(map(float, re.findall(r"\d+", line))) for line in said.splitlines()]
        for said in (capsys.readouterr().out, printed)
    )
    # Rounded pixels, of answers that differ by a rounding error.
    assert np.allclose(boxes, wanted, atol=1)
    found = with_torch["found"]
    assert 3 < len(found["boxes"]) <= 100
    assert len(with_onnx["found"]) == len(found["boxes"])
    assert np.allclose([score for _, score, _ in with_onnx["found"]], found["scores"], atol=1e-5)
    assert [int(label) for *_, label in with_onnx["found"]] == found["labels"].tolist()
    assert with_torch["mask"].shape == (size[1], size[0])
