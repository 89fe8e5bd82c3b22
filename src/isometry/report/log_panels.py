"""The report's figures and pictures of a finished run, by name, for TensorBoard and W&B."""

from collections.abc import Sequence

import numpy as np

from isometry.report import formats
from isometry.report.drawing.colours import COLOUR_MAP
from isometry.report.drawing.images import colour_range
from isometry.report.drawing.matrices import matrix_picture
from isometry.report.records.data import Matrix, Picture, RelationMaps, ReportData

LEAST_SIDE = 256
"""Pixels of a map: viewers of logs blur what they enlarge."""
GAP = 8
"""White pixels between maps side by side."""


def logged_figures(data: ReportData) -> dict[str, float]:
    """The numbers of the table of models, by role and key; each block's gap; the shares of channels that images kept.

    Rows of other runs ("companion") are left out: their own logs have them.
    """
    found = {
        f"{row['role']}/{key}": float(value)
        for row in data.models
        for key, value in row.items()
        if row.get("role") not in (None, "companion") and formats.is_number(value)
    }
    for maps in data.relations:
        found |= {f"gap before/{maps.block}": maps.gap_before, f"gap after/{maps.block}": maps.gap_after}
    if data.pruning:
        for name, group in data.pruning.groups.items():
            shares = zip(data.pruning.layers, group.shares, strict=True)
            found |= {f"kept by {name} images/{layer}": share for layer, share in shares}
    return found


def logged_pictures(data: ReportData) -> dict[str, Picture]:
    """The report's maps, matrices and images, uint8 (H, W, 3): the teacher's relation map beside the student's before
    and after training, block by block; CKA before and after; maps by saliencies and features; easy and hard images."""
    found = {f"relations/{maps.block}": relations_picture(maps) for maps in data.relations}
    for name, matrix in data.cka.items():
        found[f"CKA/{name}"] = matrix_picture(matrix, data.student_blocks, data.teacher_blocks)
    if data.pruning:
        for maps in data.pruning.maps:
            found[f"saliencies and features/{maps.layer}"] = _maps([maps.saliencies, maps.features])
        for name, group in data.pruning.groups.items():
            if group.examples:
                # Grey images as RGB.
                pictures = [
                    np.broadcast_to(each.pixels, (*each.pixels.shape[:2], 3)) for each in group.examples
                ]
                found[f"images/{name}"] = _side_by_side(pictures)
    return found


def relations_picture(maps: RelationMaps) -> Picture:
    """Teacher, student before and student after, from left to right, under one colour scale."""
    return _maps([maps.teacher, maps.before, maps.after])


def _maps(maps: Sequence[Matrix]) -> Picture:
    low, high = colour_range(maps)
    scaled = [(np.nan_to_num(each, nan=low) - low) / (high - low) for each in maps]
    return _side_by_side([COLOUR_MAP(each, bytes=True)[:, :, :3] for each in scaled])


def _side_by_side(pictures: Sequence[Picture]) -> Picture:
    """Pictures in a row on white, each enlarged by a whole number so that its pixels stay sharp."""
    scales = [-(-LEAST_SIDE // max(each.shape[:2])) for each in pictures]
    large = [each.repeat(scale, 0).repeat(scale, 1) for each, scale in zip(pictures, scales, strict=True)]
    height, width = max(len(each) for each in large), sum(each.shape[1] + GAP for each in large) - GAP
    canvas, left = np.full((height, width, 3), 255, np.uint8), 0
    for each in large:
        canvas[: each.shape[0], left : left + each.shape[1]] = each
        left += each.shape[1] + GAP
    return canvas
