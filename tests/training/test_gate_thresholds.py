"""Gates after an epoch of a pruning run: thresholds, the limit of easy images, the best epoch."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.pruned_runs import SIZED, dense_run
from helpers.runs import as_rank, config_of, in_two_processes, trainer_of
from helpers.saliencies import IMAGES, LAYERS, epoch
from isometry.distributed import World
from isometry.functional.labels import cross_entropy_each
from isometry.losses import Sparsity
from isometry.models.finite import FirstLook
from isometry.prune.gate_statistics import SCALE
from isometry.prune.gates import GatedConv, gated_convs
from isometry.training.assemble import assemble
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.gate_thresholds import GateThresholds
from isometry.training.loop import Trainer
from isometry.training.objective import Objective
from isometry.training.parallelize import prepare
from isometry.training.step_memory import step_memory
from oracles import gates as oracle

ALONE = World(0, 1, torch.device("cpu"))


def run(keep_rate: float = 0.6, epochs: int = 4, ema: bool = True) -> Any:
    """What a GateThresholds needs to know of a run."""
    networks = [
        nn.Sequential(
            *(GatedConv(nn.Conv2d(1, gates, 1), nn.BatchNorm2d(gates)) for gates in LAYERS.values())
        )
        for _ in range(2)
    ]
    sparsity = Sparsity()
    return SimpleNamespace(
        student=networks[0],
        config=SimpleNamespace(prune=SimpleNamespace(keep_rate=keep_rate, settle=0.0), epochs=epochs),
        objective=SimpleNamespace(
            losses=nn.ModuleDict({"sparsity": nn.ModuleList([sparsity])}),
            get_eval_model=lambda ema=False: networks[ema],
            has_ema=lambda: ema,
        ),
    )


def thresholds(network: nn.Module) -> list[Tensor]:
    return [conv.gate.threshold.clone() for conv in gated_convs(network).values()]


def kept_at_the_end(setter: GateThresholds, at: int) -> list[Tensor]:
    setter.statistics.settle()
    setter.set_thresholds(at)
    losses = setter.run.objective.losses
    return [*thresholds(setter.run.student), losses["sparsity"][0].limit.clone()]


def add(setter: GateThresholds, rows: slice) -> None:
    saliencies, entropies = epoch()
    setter.add([{"saliencies": [layer[rows] for layer in saliencies], "cross_entropy": entropies[rows]}])


@pytest.mark.parametrize(("at", "rate"), [(3, "0.6"), (1, "0.8")])
def test_thresholds_and_limit_are_those_of_the_loops(at, rate):
    setter = GateThresholds(run(), ALONE)
    add(setter, slice(None))
    *found, limit = kept_at_the_end(setter, at)
    saliencies, entropies = epoch()
    for threshold, layer in zip(found, saliencies, strict=True):
        means = [sum(row) / IMAGES for row in layer.double().T.tolist()]
        assert threshold.item() == pytest.approx(oracle.threshold(means, rate), rel=1e-6, abs=1e-9)
    assert limit.item() == pytest.approx(0.5 * entropies.mean().item(), rel=1e-6)


def test_the_moving_average_gets_the_same_thresholds():
    setter = GateThresholds(run(), ALONE)
    add(setter, slice(None))
    kept_at_the_end(setter, 0)
    objective = setter.run.objective
    assert thresholds(objective.get_eval_model(ema=True)) == thresholds(setter.run.student)
    assert any(threshold > 0 for threshold in thresholds(setter.run.student))


def test_saliencies_that_are_all_alike_stay_open():
    """As they are before the first step: no channel may be lost to rounding of the mean."""
    setter = GateThresholds(run(0.3, 1), ALONE)
    for value in (1.0, 0.7, 1 / 3):
        layers = [torch.full((IMAGES, gates), value) for gates in LAYERS.values()]
        setter.add([{"saliencies": layers, "cross_entropy": torch.ones(IMAGES)}])
        kept_at_the_end(setter, 0)
        for conv, layer in zip(gated_convs(setter.run.student).values(), layers, strict=True):
            assert conv.gate.kept(layer).all()


def half_an_epoch(rank: int, rendezvous: str, out: str) -> None:
    """What one of two processes sets after its share of the images, with a stop half-way."""
    world = as_rank(rank, rendezvous)
    setter = GateThresholds(run(), world)
    add(setter, slice(rank, 40, 2))
    setter.statistics.settle()
    kept = setter.statistics.state_dict()
    setter = GateThresholds(run(), world)
    setter.statistics.load_state_dict(kept)
    # Uneven shares, too.
    add(setter, slice(40, 43) if rank else slice(43, None))
    found = kept_at_the_end(setter, 2)
    save_file({str(at): tensor for at, tensor in enumerate(found)}, f"{out}/{rank}.safetensors")
    world.close()


def test_two_processes_set_the_thresholds_of_one(tmp_path: Path) -> None:
    in_two_processes(half_an_epoch, tmp_path, str(tmp_path))
    setter = GateThresholds(run(), ALONE)
    add(setter, slice(None))
    wanted = kept_at_the_end(setter, 2)
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert [found[str(at)].item() for at in range(len(wanted))] == [tensor.item() for tensor in wanted]


def test_a_student_without_gates_is_unchanged():
    bare = SimpleNamespace(student=nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)))
    setter = GateThresholds(bare, ALONE)
    setter.add([{"loss": torch.ones(()), "output": torch.ones(3, 2)}])
    setter.statistics.settle()
    assert (setter.layers, setter.statistics.state_dict()) == ({}, {})


# --- in the loop


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network that is pruned."""
    return dense_run(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def words(dense: Path) -> list[str]:
    """Six steps an epoch."""
    prune = [*SIZED, "--model", str(dense), "--keep-rate", "0.6", "--epochs", "2"]
    return [*prune, "--model-ema", "--model-ema-decay", "0.5"]


Heard = tuple[list[int], list[dict[str, Any]]]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """The training images and the objective's results of every step that is taken, as they come."""
    images: list[int] = []
    results: list[dict[str, Any]] = []
    forward, step = Objective.forward, Trainer.train_step

    def stepping(self: Trainer, batches: list[Any]) -> bool:
        def hearing(*given: Tensor) -> dict[str, Any]:
            results.append(forward(self.objective, *given))
            return results[-1]

        images.extend(int(index) for batch in batches for index in batch.indices)
        with monkeypatch.context() as within:
            within.setattr(self.objective, "forward", hearing)
            return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", stepping)
    return images, results


def mean_saliencies(results: list[dict[str, Any]]) -> list[Tensor]:
    """Of each layer over all images of some results, float64."""
    layers = zip(*(result["saliencies"] for result in results), strict=True)
    return [torch.cat(layer).double().mean(0) for layer in layers]


def mean_cross_entropy(results: list[dict[str, Any]]) -> float:
    """Over all images of some results."""
    return float(torch.cat([result["cross_entropy"] for result in results]).double().mean())


@pytest.mark.parametrize("more", ["", "--grad-accum-steps 4", "--mixup 0.5 --cutmix 1 --drop-path 0.2"])
def test_statistics_see_each_training_image_once_an_epoch(more: str, words: list[str], heard: Heard) -> None:
    """And no image of an evaluation or of a probe."""
    trainer = trainer_of(*words, *more.split())
    images, results = heard
    prepare(trainer.objective, trainer.config, ALONE, trainer.run.spec.input_size)
    for number in range(2):
        step_memory(
            trainer.objective, trainer.run.spec.input_size, 150, moments=1, moving_average=True, probe=4
        )
        trainer.evaluate()
        trainer.train_epoch()
        trainer.evaluate()
        statistics = trainer.thresholds.statistics
        statistics.settle()
        assert float(statistics.state_dict()["sums"][-1]) / SCALE == 900
        assert sorted(images) == list(range(900))
        means, cross_entropy = statistics.means()
        for found, wanted in zip(means.values(), mean_saliencies(results), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
        assert cross_entropy == pytest.approx(mean_cross_entropy(results), abs=1e-9)
        assert trainer.end_epoch()["epoch"] == number + 1
        assert not statistics.state_dict()["sums"].any()
        images.clear()
        results.clear()


def test_an_epoch_sets_thresholds_and_the_limit_of_the_next(words: list[str], heard: Heard) -> None:
    """Of the student and of its moving average alike, from the student's saliencies in that epoch alone."""
    trainer = trainer_of(*words)
    sparsity = trainer.objective.losses["sparsity"][0]
    for number, rate in enumerate(("0.8", "0.6")):
        trainer.train_epoch()
        results = heard[1][6 * number :]
        row = trainer.end_epoch()
        for ema in (False, True):
            network = trainer.objective.get_eval_model(ema=ema)
            for found, means in zip(thresholds(network), mean_saliencies(results), strict=True):
                assert found.item() == pytest.approx(oracle.threshold(means.tolist(), rate), rel=1e-6)
        assert sparsity.limit.item() == pytest.approx(0.5 * mean_cross_entropy(results), rel=1e-6)
        assert sparsity.limit.item() == pytest.approx(0.5 * row["train/ce"], rel=1e-5)
        assert row["keep_rate"] == pytest.approx(float(rate))
        assert (row["train/sparsity"] > 0) is (number > 0)


def test_labels_given_as_shares_set_the_limit_too(words: list[str]) -> None:
    trainer = trainer_of(*words, "--mixup", "1", "--smoothing", "0.1")
    batch = next(trainer.loaders.train.epoch(0))
    input, target = trainer.preprocess(batch)
    assert target.shape == (150, 10)
    found = trainer.objective(input, target)
    torch.testing.assert_close(found["cross_entropy"], cross_entropy_each(found["output"], target))


@pytest.mark.parametrize(
    ("epochs", "last", "settle", "falling"),
    [(1, 0.3, 0, 1), (3, 0.1, 0, 3), (4, 0.6, 0, 4), (2, 1.0, 0, 2), (4, 0.6, 0.25, 3), (4, 0.3, 0.99, 1)],
)
def test_every_row_of_metrics_has_the_keep_rate(
    epochs: int, last: float, settle: float, falling: int, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--epochs", str(epochs), "--keep-rate", str(last), "--prune.settle", str(settle)]
    trainer = trainer_of(*words, *asked)
    batch = next(trainer.loaders.train.epoch(0))
    monkeypatch.setattr(trainer.batches, "groups", lambda epoch, seen: iter([[batch]]))
    monkeypatch.setattr(trainer, "evaluate", dict)
    rates = []
    for _ in range(epochs):
        trainer.train_epoch()
        rates.append(trainer.end_epoch()["keep_rate"])
    fallen = [oracle.keep_rate(at, falling, last) for at in range(falling)]
    assert rates == pytest.approx([*fallen, *[last] * (epochs - falling)])
    assert rates[-1] == last


def three_epochs(out: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """What a run of three epochs, each worse than the one before, says of its best one."""
    worse = iter([{"val/top1": 90.0}, {"val/top1": 80.0}, {"val/top1": 70.0}])
    monkeypatch.setattr(Trainer, "evaluate", lambda self: next(worse))
    every = ["--epochs", "3", "--batch-size", "450", "--out", str(out)]
    with RunFolder(config_of(*words, *every)) as folder:
        trainer = trainer_of(*words, *every, folder=folder)
        folder.begin(trainer.run.config)
        trainer.fit()
    told = json.loads((out / "best" / "checkpoint.json").read_text())
    kept = load_file(out / "best" / told["files"]["model"])
    student = trainer.objective.student.state_dict()
    assert trainer.state.best_epoch == told["epoch"]
    return told | {"is_last": all(torch.equal(kept[name], student[name]) for name in student)}


def test_the_last_epoch_is_kept_whatever_the_ones_before_scored(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They kept more channels, and were no answer to what was asked."""
    pruning = [*SIZED, "--model", str(dense), "--keep-rate", "0.5"]
    told = three_epochs(tmp_path / "gates", monkeypatch, *pruning)
    assert (told["epoch"], told["score"], told["is_last"]) == (3, 70.0, True)


@pytest.mark.parametrize("more", [[], ["--keep-rate", "0.5", "--prune.method", "l1"]])
def test_without_gates_the_best_epoch_is_kept_and_no_row_has_a_keep_rate(
    more: list[str], dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = three_epochs(tmp_path / "run", monkeypatch, *SIZED, "--model", str(dense), *more)
    assert (told["epoch"], told["score"], told["is_last"]) == (1, 90.0, False)
    assert "keep_rate" not in (tmp_path / "run" / "metrics.csv").read_text()
    last = json.loads((tmp_path / "run" / "last" / "checkpoint.json").read_text())
    assert "gates" not in last["files"]


def test_steps_with_gates_wait_for_nothing_either(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, where there are no numbers: whoever asks for one gets an error."""
    # That device lacks these two, which wait for nothing: mixed precision, and the optimizer's fused kernel.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    # The first answers are looked at, once, which waits.
    monkeypatch.setattr(FirstLook, "__call__", lambda *args, **kwargs: None)
    trainer = trainer_of(*words, "--model-ema", "false", "--log-interval", "100", device="meta")
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    trainer.objective.train()
    for batch in trainer.loaders.train.epoch(0):
        trainer.train_step([batch])
    assert trainer.state.step == 6


# --- two processes


def fit_in_two(rank: int, rendezvous: str, words: list[str], out: str) -> None:
    """Writes down what one of two processes has summed up and set at each epoch's end."""
    world = as_rank(rank, rendezvous)
    trainer = Trainer(assemble(config_of(*words), world), None, world, None, "")
    sets = GateThresholds.set_thresholds
    kept: dict[str, Tensor] = {}

    def setting(self: GateThresholds, at: int) -> float:
        self.statistics.settle()
        kept[f"sums {at}"] = self.statistics.state_dict()["sums"].clone()
        found = sets(self, at)
        for ema in (False, True):
            network = trainer.objective.get_eval_model(ema=ema)
            kept[f"thresholds {at} {ema}"] = torch.stack(thresholds(network))
        kept[f"limit {at}"] = self.run.objective.losses["sparsity"][0].limit.clone()
        return found

    GateThresholds.set_thresholds = setting
    trainer.fit()
    save_file(kept, f"{out}/{rank}.safetensors")
    world.close()


def test_two_processes_that_train_set_the_same_thresholds(words: list[str], tmp_path: Path) -> None:
    in_two_processes(fit_in_two, tmp_path, [*words, "--batch-size", "75"], str(tmp_path))
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    for number in range(2):
        assert float(first[f"sums {number}"][-1]) / SCALE == 900
        assert torch.equal(first[f"thresholds {number} False"], first[f"thresholds {number} True"])
        assert (first[f"thresholds {number} False"] > 0).all()
