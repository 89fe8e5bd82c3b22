"""What a log shows of a finished run beside its curves: the report's figures and pictures, by name."""

import numpy as np

from isometry.report import formats
from isometry.report.drawing.charts import COLOUR_MAP, colour_range
from isometry.report.drawing.matrix import matrix_picture
from isometry.report.records.data import Matrix, Picture, PruningData, RelationMaps, ReportData

SIDE = 256
"""Least side of a map, pixels: viewers of logs blur what they enlarge."""
BETWEEN = 8
"""White pixels between maps that stand side by side."""


def logged_figures(data: ReportData) -> dict[str, float]:
    """The numbers of the table of models, by role and key; each block's gap; the shares of channels that images kept.

    Companions of other runs are left out: their own logs have them.
    """
    found = {
        f"{row['role']}/{key}": float(value)
        for row in data.models
        for key, value in row.items()
        if row.get("role") not in (None, "companion") and formats.is_number(value)
    }
    for maps in data.relations:
        found |= {f"gap before/{maps.block}": maps.gap_before, f"gap after/{maps.block}": maps.gap_after}
    return found | (_kept(data.pruning) if data.pruning else {})


def logged_pictures(data: ReportData) -> dict[str, Picture]:
    """The report's maps, matrices and images, uint8 (H, W, 3): the teacher's relation map beside the student's before
    and after training, block by block; CKA before and after; maps by saliencies and features; easy and hard images."""
    found = {f"relations/{maps.block}": relations_picture(maps) for maps in data.relations}
    for name, matrix in (("before", data.cka_before), ("after", data.cka_after)):
        if matrix is not None:
            found[f"CKA/{name} training"] = matrix_picture(matrix, data.student_blocks, data.teacher_blocks)
    return found | (_pruned(data.pruning) if data.pruning else {})


def relations_picture(maps: RelationMaps) -> Picture:
    """Teacher, student before and student after, from left to right, under one colour scale."""
    return _side_by_side([maps.teacher, maps.before, maps.after])


def _pruned(pruning: PruningData) -> dict[str, Picture]:
    found = {
        f"saliencies and features/{m.layer}": _side_by_side([m.saliencies, m.features]) for m in pruning.maps
    }
    for name, group in (("easy", pruning.easy), ("hard", pruning.hard)):
        if group is not None and group.examples:
            found[f"images/{name}"] = _row([_coloured(example.pixels) for example in group.examples])
    return found


def _kept(pruning: PruningData) -> dict[str, float]:
    groups = (("easy", pruning.easy), ("hard", pruning.hard))
    return {
        f"kept by {name} images/{layer}": share
        for name, group in groups
        if group is not None
        for layer, share in zip(pruning.layers, group.shares, strict=True)
    }


def _side_by_side(maps: list[Matrix]) -> Picture:
    low, high = colour_range(maps)
    shares = [np.clip((np.nan_to_num(each, nan=low) - low) / (high - low), 0, 1) for each in maps]
    return _row([COLOUR_MAP(share, bytes=True)[:, :, :3] for share in shares])


def _coloured(pixels: Picture) -> Picture:
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _row(pictures: list[Picture]) -> Picture:
    """Pictures side by side on white, each enlarged by a whole number so that its pixels stay sharp."""
    large = [
        np.kron(each, np.ones((-(-SIDE // max(each.shape[:2])),) * 2 + (1,), np.uint8)) for each in pictures
    ]
    height, width = max(len(each) for each in large), sum(each.shape[1] + BETWEEN for each in large) - BETWEEN
    canvas, left = np.full((height, width, 3), 255, np.uint8), 0
    for each in large:
        canvas[: each.shape[0], left : left + each.shape[1]] = each
        left += each.shape[1] + BETWEEN
    return canvas
