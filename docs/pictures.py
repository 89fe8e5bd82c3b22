"""Draws the pictures of these pages that need no training: ``python docs/pictures.py``.

geometry.png and ablation.png are made by runs; the pages have the commands.
"""

import math
import sys
from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot as plt

from isometry.functional import gram_gap, relation_map
from isometry.functional.gates import keep_rate_at
from isometry.grow.operators import DepthOperator, available

matplotlib.use("svg")
# Text stays text, so that it can be selected and scaled; ids are the same every time.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "isometry", "font.family": "sans-serif"})


def draw_points(file: Path) -> None:
    """Three sets of six tokens above their relation maps: rotated and scaled, and with other directions."""
    angles = torch.tensor([0.1, 0.5, 0.8, 2.2, 2.6, 4.4], dtype=torch.float64)
    lengths = torch.tensor([1.0, 0.8, 1.1, 0.9, 1.2, 1.0], dtype=torch.float64)
    teacher = torch.stack([angles.cos(), angles.sin()], 1) * lengths[:, None]
    angle = torch.tensor(2.0)
    rotation = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]], dtype=torch.float64)
    rotated = 0.6 * teacher @ rotation.T
    other_angles = torch.linspace(0, 2 * math.pi, 7, dtype=torch.float64)[:6] + 0.3
    other = torch.stack([other_angles.cos(), other_angles.sin()], 1) * lengths[:, None]
    figure, axes = plt.subplots(2, 3, figsize=(7.2, 4.9), layout="constrained")
    for column, (title, tokens) in enumerate(
        (("teacher", teacher), ("rotated and scaled", rotated), ("other directions", other))
    ):
        points, chart = axes[:, column]
        for number, (x, y) in enumerate(tokens.tolist(), start=1):
            points.plot([0, x], [0, y], color="0.75", zorder=1)
            points.plot(x, y, "o", color="tab:blue", markersize=12, zorder=2)
            points.text(x, y, str(number), color="white", ha="center", va="center", fontsize=8)
        points.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[], title=title)
        gap = gram_gap(tokens, teacher).item()
        chart.imshow(relation_map(tokens).numpy(), vmin=-1, vmax=1, cmap="RdBu_r")
        chart.set(xticks=range(6), yticks=range(6), xlabel=f"gap to the teacher's map: {gap:.2f}")
        chart.set_xticklabels(range(1, 7))
        chart.set_yticklabels(range(1, 7))
    _save(figure, file)


def draw_growth(file: Path, old: int = 4, new: int = 6) -> None:
    """The source of each block of a grown network, for each depth operator."""
    figure, axis = plt.subplots(figsize=(7.2, 2.3), layout="constrained")
    operators = {name: available(DepthOperator)[name] for name in ("insert", "stack", "identity")}
    for row, operator in enumerate(operators.values()):
        for place, block in enumerate(operator.order(old, new)):
            colour = "tab:orange" if block.source is None else "tab:green" if block.averaged else "tab:blue"
            label = "new" if block.source is None else f"{block.source + 1}{'′' if block.averaged else ''}"
            axis.add_patch(plt.Rectangle((place + 0.06, row + 0.15), 0.88, 0.7, color=colour))
            axis.text(place + 0.5, row + 0.5, label, color="white", ha="center", va="center")
    axis.set(xlim=(-0.05, new + 0.05), ylim=(len(operators), 0), xticks=[])
    axis.set_yticks([row + 0.5 for row in range(len(operators))], list(operators))
    axis.set_title(
        f"{old} blocks become {new}: trained (blue), copies of the moving average (green), identity (orange)",
        fontsize=10,
    )
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    _save(figure, file)


def draw_keep_rate(file: Path, epochs: int = 60, last: float = 0.6, settle: float = 0.25) -> None:
    """The share of channels that the mean image keeps in each epoch: by default, and as published."""
    figure, axis = plt.subplots(figsize=(7.2, 2.8), layout="constrained")
    for share, label, style in (
        (settle, "default: constant in the last quarter", "-"),
        (0.0, "as published", "--"),
    ):
        falling = max(1, round((1 - share) * epochs))
        rates = [keep_rate_at(min(epoch, falling - 1), falling, last) for epoch in range(epochs)]
        axis.plot(range(1, epochs + 1), rates, style, label=label)
    axis.set(xlabel="epoch", ylabel="keep rate", ylim=(0, 1.05), xlim=(1, epochs))
    axis.legend()
    axis.grid(alpha=0.3)
    _save(figure, file)


def _save(figure: plt.Figure, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None}, facecolor="white")
    plt.close(figure)


def draw(folder: Path) -> None:
    """Draws all pictures into a folder."""
    draw_points(folder / "points.svg")
    draw_growth(folder / "growth.svg")
    draw_keep_rate(folder / "keep_rate.svg")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
