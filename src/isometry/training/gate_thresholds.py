"""Gates in the loop: statistics of an epoch, and the thresholds that follow from them."""

from typing import Any

from isometry.distributed import World
from isometry.functional.gates import keep_rate_at, layer_threshold
from isometry.prune.gate_statistics import GateStatistics
from isometry.prune.gates import gated_convs
from isometry.training.assemble import Run

EASY = 0.5
"""Images are easy if their cross-entropy is below this fraction of the previous epoch's mean."""


class GateThresholds:
    """Collects statistics of the student's gates over an epoch, and sets their thresholds at its end.

    Does nothing for a student without gates. ``layers`` has the number of gates of each layer, by its name.
    """

    def __init__(self, run: Run, world: World) -> None:
        self.run = run
        self.layers = {name: conv.gate.excite.out_features for name, conv in gated_convs(run.student).items()}
        self.statistics = GateStatistics(self.layers, world)

    def add(self, results: list[dict[str, Any]]) -> None:
        """Adds an objective's results for a step's training images, without waiting for the device."""
        for result in results if self.layers else []:
            self.statistics.add(result["saliencies"], result["cross_entropy"])

    def set_thresholds(self, epoch: int) -> float:
        """Sets the thresholds and the limit of easy images, from the statistics of the epoch (from 0) that ends.

        Returns:
            The keep rate of the thresholds.
        """
        config, objective = self.run.config, self.run.objective
        assert config.prune.keep_rate is not None
        falling = max(1, round((1 - config.prune.settle) * config.epochs))
        rate = keep_rate_at(min(epoch, falling - 1), falling, config.prune.keep_rate)
        self.statistics.settle()
        saliencies, cross_entropy = self.statistics.means()
        self.statistics.clear()
        networks = [
            objective.get_eval_model(),
            *([objective.get_eval_model(ema=True)] if objective.has_ema() else []),
        ]
        for network in networks:
            for name, conv in gated_convs(network).items():
                conv.gate.threshold.fill_(layer_threshold(saliencies[name], rate))
        if "sparsity" in objective.losses:
            objective.losses["sparsity"][0].limit.fill_(EASY * cross_entropy)
        return rate
