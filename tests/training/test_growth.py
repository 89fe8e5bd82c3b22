"""Growth in the loop: learning rate, moving average, optimizer state, metrics."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch._dynamo.utils import counters

from helpers.runs import DIGITS, TINY_STUDENT, config_of, trainer_of
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.loop import Trainer
from isometry.training.optim import at_stage

SLOW = pytest.mark.slow

STUDENT = {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 2}
WORDS = [*TINY_STUDENT, "--student-kwargs", "depth=3", "--batch-size", "300", "--epochs", "2"]
"""Three steps an epoch; the student has three blocks."""

DEEPER = ["--grow.depth", "2,3"]
WIDER = ["--grow.width", "8,16"]
IDENTITY = [*DEEPER, "--grow.depth-operator", "identity"]
AVERAGED = ["--model-ema", "--model-ema-decay", "0.5"]


def at_growth(*words: str, folder: RunFolder | None = None) -> Trainer:
    """A trainer that has trained its first stage's epochs and is about to grow."""
    trainer = trainer_of(*WORDS, *words, folder=folder)
    for _ in range(trainer.run.stage.epochs):
        trainer.train_epoch()
        trainer.end_epoch()
    return trainer


def grow(trainer: Trainer) -> None:
    """To the next stage."""
    trainer.grow(trainer.run.schedule.stages[trainer.run.stage.number + 1])


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, copied."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def average(trainer: Trainer) -> dict[str, Tensor]:
    """The moving average of the weights, copied."""
    return weights(trainer.objective.trainable_module_ema.module)


@torch.no_grad()
def logits(trainer: Trainer) -> Tensor:
    """Of some images, in eval mode; they must not be all alike, or comparing them would prove nothing."""
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    found: Tensor = trainer.objective.student.eval()(images)
    assert found.std(dim=0).min() > 1e-3
    return found


def each_step(trainer: Trainer, look: Callable[[Trainer], Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Trains to the end; what ``look`` sees right before each of the optimizer's steps."""
    seen = []
    update = Trainer._update

    def looking(self: Trainer) -> None:
        seen.append(look(self))
        update(self)

    monkeypatch.setattr(Trainer, "_update", looking)
    trainer.fit()
    monkeypatch.setattr(Trainer, "_update", update)
    return seen


def rates(trainer: Trainer) -> set[float]:
    """The learning rates of all groups."""
    return {group["lr"] for group in trainer.optimizer.param_groups}


# --- the schedule of the rate, and the decay
# --------------------------------------------------------------------------------------------------------


def test_the_rate_goes_on_as_if_nothing_had_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    long = ["--epochs", "5", "--warmup-epochs", "1"]
    grown = each_step(trainer_of(*WORDS, *long, *DEEPER, *WIDER), rates, monkeypatch)
    plain = each_step(trainer_of(*WORDS, *long), rates, monkeypatch)
    assert len(set(map(max, plain))) == len(plain) == 15
    assert grown == plain


def warmed_up_cosine(step: int, steps: int, warmup: int) -> float:
    """The rate at a step, from its definition, with this run's ends."""
    if step < warmup:
        return 1e-6 + (1e-3 - 1e-6) * step / warmup
    return 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * step / steps)) / 2


def test_a_restarted_rate_warms_up_and_decays_in_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of 2 and 5 epochs; a warm-up of 2 epochs, and of 1 where the stage has only 2."""
    long = ["--epochs", "7", "--warmup-epochs", "2", "--grow.at", "0,2", "--grow.lr", "restart"]
    seen = each_step(trainer_of(*WORDS, *long, *DEEPER), rates, monkeypatch)
    wanted = [warmed_up_cosine(step, 6, 3) for step in range(6)]
    wanted += [warmed_up_cosine(step, 15, 6) for step in range(15)]
    assert [max(rate) for rate in seen] == pytest.approx(wanted)


def decays(trainer: Trainer) -> set[float]:
    """The weight decays of all groups."""
    return {group["weight_decay"] for group in trainer.optimizer.param_groups}


@pytest.mark.parametrize(("how", "shares"), [("constant", (1, 1)), ("depth", (2 / 3, 1))])
def test_weight_decay_may_follow_the_depth(
    how: str, shares: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*DEEPER, "--grow.weight-decay", how, "--weight-decay", "0.3"]
    seen = each_step(trainer_of(*WORDS, *words), decays, monkeypatch)
    assert seen == [{0.0, 0.3 * share} for share in shares for _ in range(3)]


def test_a_stage_changes_the_config_of_rate_and_decay_only_when_asked() -> None:
    run = trainer_of(*WORDS, *DEEPER).run
    config, schedule = run.config, run.schedule
    assert all(at_stage(config, config.grow, schedule, stage) == config for stage in schedule.stages)


def test_without_growth_nothing_changes(tmp_path: Path) -> None:
    words = [*WORDS, "--epochs", "1", "--out", str(tmp_path)]
    trainer = trainer_of(*words, folder=RunFolder(config_of(*words)))
    trainer.fit()
    assert not trainer.run.schedule.grows
    assert trainer.run.schedule.describe(trainer.run.stage) == ""
    assert trainer.run.config.grow == config_of(*words).grow
    assert trainer.state.growths == []
    assert "stage" not in json.loads((tmp_path / "metrics.jsonl").read_text())
    spec = json.loads((tmp_path / "last" / "checkpoint.json").read_text())["spec"]
    assert (spec["stage"], spec["stages"]) == (1, 1)


# --- the network
# --------------------------------------------------------------------------------------------------------


def drop_paths(model: nn.Module) -> list[float]:
    """The rates of all drop-paths, in order."""
    return [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]


def test_drop_path_is_spread_again() -> None:
    trainer = at_growth("--drop-path", "0.3", *DEEPER, *WIDER)

    def built(**changes: int) -> list[float]:
        kwargs = {**STUDENT, **changes, "img_size": 8}
        return drop_paths(timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.3, **kwargs))

    assert drop_paths(trainer.objective.student) == built(depth=2)
    grow(trainer)
    assert drop_paths(trainer.objective.student) == built()
    assert len(set(built())) == 2


def test_the_loop_trains_what_has_grown() -> None:
    trainer = at_growth(*DEEPER, *WIDER)
    small = trainer.objective.student
    grow(trainer)
    student = trainer.objective.student
    assert student is trainer.run.student is trainer.checkpoints.objective.student
    assert student is not small
    assert (len(student.blocks), student.embed_dim) == (3, 16)
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in student.parameters()}
    before, untouched = weights(student), weights(small)
    trainer.train_epoch()
    assert all(not torch.equal(p, before[name]) for name, p in student.named_parameters())
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in small.state_dict().items())


@pytest.mark.parametrize("words", [IDENTITY, [*IDENTITY, *WIDER]], ids=["deeper", "deeper and wider"])
def test_what_is_new_is_drawn_from_the_seed_and_nothing_else(words: list[str]) -> None:
    """Whatever the generators were used for before: a run that goes on has not used them."""
    grown = []
    for seed in ("1", "1", "2"):
        trainer = trainer_of(*WORDS, *words, "--seed", seed)
        torch.rand(1 + len(grown))
        grow(trainer)
        grown.append(weights(trainer.objective.student))
    # The last block is the new one.
    drawn = "blocks.2.attn.qkv.weight"
    assert all(torch.equal(tensor, grown[0][name]) for name, tensor in grown[1].items())
    assert not torch.equal(grown[0][drawn], grown[2][drawn])
    assert not torch.equal(grown[0][drawn], grown[0]["blocks.1.attn.qkv.weight"])


@pytest.mark.parametrize(
    "words",
    [IDENTITY, WIDER, [*IDENTITY, *WIDER]],
    ids=["identity", "duplicate", "both"],
)
def test_scores_are_the_same_just_before_and_just_after_growth_that_promises_it(words: list[str]) -> None:
    """Of the model and of its grown average; a rate that teaches something, so that they are not all alike."""
    trainer = at_growth(*words, *AVERAGED, "--grow.ema", "grow", "--lr", "0.03")
    before = logits(trainer)
    grow(trainer)
    (growth,) = trainer.state.growths
    assert growth["before"].keys() == growth["after"].keys()
    assert {"val/loss", "val/top1", "val_ema/loss"} <= growth["before"].keys()
    assert growth["before"]["val/loss"] != pytest.approx(growth["before"]["val_ema/loss"], rel=1e-4)
    assert growth["after"] == pytest.approx(growth["before"], rel=1e-5)
    torch.testing.assert_close(logits(trainer), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "words",
    [DEEPER, [*DEEPER, "--grow.depth-operator", "stack"], [*WIDER, "--grow.width-operator", "interpolate"]],
    ids=["insert", "stack", "interpolate"],
)
def test_scores_of_growth_that_changes_the_function_are_recorded_too(words: list[str]) -> None:
    trainer = at_growth(*words, "--lr", "0.01")
    before = trainer.evaluate()
    grow(trainer)
    (growth,) = trainer.state.growths
    assert growth["before"] == before
    assert growth["after"] == trainer.evaluate()
    assert growth["after"]["val/loss"] != pytest.approx(before["val/loss"], rel=1e-4)


def test_without_a_validation_part_growth_has_no_scores() -> None:
    trainer = trainer_of(*WORDS, *DEEPER)
    trainer.loaders = replace(trainer.loaders, val=None)
    trainer.fit()
    assert [(growth["before"], growth["after"]) for growth in trainer.state.growths] == [({}, {})]


def test_the_best_network_is_never_a_smaller_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it scored higher than the full-size one ever does."""
    scores = iter([90.0, 80.0, 10.0, 20.0, 20.0])
    monkeypatch.setattr(Trainer, "evaluate", lambda self: {"val/top1": next(scores)})
    words = [*WORDS, "--epochs", "4", "--grow.at", "0,1", *DEEPER, "--out", str(tmp_path)]
    trainer = trainer_of(*words, folder=RunFolder(config_of(*words)))
    trainer.fit()
    # 90 before growth, 80 just after it: neither is an epoch of the full-size network.
    assert (trainer.state.best, trainer.state.best_epoch) == (20.0, 3)
    told = json.loads((tmp_path / "best" / "checkpoint.json").read_text())
    assert (told["spec"]["stage"], told["epoch"], told["score"]) == (2, 3, 20.0)


# --- the moving average
# --------------------------------------------------------------------------------------------------------


def test_the_average_starts_anew_from_the_grown_weights() -> None:
    trainer = at_growth(*DEEPER, *AVERAGED)
    grow(trainer)
    grown = weights(trainer.objective.student)
    assert all(torch.equal(tensor, grown[name]) for name, tensor in average(trainer).items())


@pytest.mark.parametrize(
    ("operator", "order"),
    [("insert", [0, 1, 1]), ("stack", [0, 1, 1]), ("identity", [0, 1, None])],
)
def test_the_average_may_grow_like_the_weights(operator: str, order: list[int | None]) -> None:
    trainer = at_growth(*DEEPER, *AVERAGED, "--grow.depth-operator", operator, "--grow.ema", "grow")
    before, trained = average(trainer), weights(trainer.objective.student)
    assert not torch.equal(before["blocks.1.mlp.fc1.weight"], trained["blocks.1.mlp.fc1.weight"])
    grow(trainer)
    after, grown = average(trainer), weights(trainer.objective.student)
    for name, tensor in after.items():
        head, _, rest = name.partition(".")
        if head != "blocks":
            assert torch.equal(tensor, before[name]), name
            assert torch.equal(grown[name], trained[name]), name
            continue
        block, _, rest = rest.partition(".")
        source = order[int(block)]
        wanted = grown[name] if source is None else before[f"blocks.{source}.{rest}"]
        assert torch.equal(tensor, wanted), name
    if operator != "identity":
        # What is copied into the network is the average, too.
        assert torch.equal(grown["blocks.2.mlp.fc1.weight"], before["blocks.1.mlp.fc1.weight"])


@pytest.mark.parametrize("how", ["restart", "grow"])
def test_the_averages_first_steps_after_growth(how: str) -> None:
    """timm's average copies in its first step. One that grew has had its first steps, and goes on averaging."""
    trainer = at_growth(*DEEPER, *AVERAGED, "--grow.ema", how)
    grow(trainer)
    before = average(trainer)
    trainer.train_step([next(iter(trainer.loaders.train.epoch(1)))])
    now = weights(trainer.objective.student)
    for name, tensor in average(trainer).items():
        wanted = now[name] if how == "restart" else (before[name] + now[name]) / 2
        torch.testing.assert_close(tensor, wanted)


# --- the optimizer
# --------------------------------------------------------------------------------------------------------


def states(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """The optimizer's state by the parameters' names."""
    return {
        name: dict(trainer.optimizer.state[parameter])
        for name, parameter in trainer.objective.student.named_parameters()
        if trainer.optimizer.state.get(parameter)
    }


def test_moments_go_along_with_their_weights() -> None:
    trainer = at_growth(*IDENTITY)
    before = states(trainer)
    grow(trainer)
    after = states(trainer)
    # New blocks have no past.
    assert after.keys() == before.keys()
    assert not any(name.startswith("blocks.2.") for name in after)
    for name, state in before.items():
        assert int(after[name]["step"]) == 3
        for moment in ("exp_avg", "exp_avg_sq"):
            assert state[moment].abs().max() > 0, name
            assert torch.equal(after[name][moment], state[moment]), name


def test_moments_of_copies_are_those_of_what_was_copied() -> None:
    trainer = at_growth(*DEEPER)
    before = states(trainer)
    grow(trainer)
    after = states(trainer)
    for place, source in enumerate((0, 1, 1)):
        name, old = f"blocks.{place}.attn.qkv.weight", f"blocks.{source}.attn.qkv.weight"
        assert torch.equal(after[name]["exp_avg"], before[old]["exp_avg"])


def test_moments_of_copied_units_are_what_their_gradients_would_have_left() -> None:
    """A unit's bias b is read by w; copied, each of the two gets half of w, and half of b's gradient."""
    trainer = at_growth(*WIDER)
    before = states(trainer)["blocks.0.mlp.fc1.bias"]
    grow(trainer)
    after = states(trainer)["blocks.0.mlp.fc1.bias"]
    assert after["exp_avg"].shape == (32,)
    torch.testing.assert_close(after["exp_avg"], before["exp_avg"].repeat(2) / 2)
    torch.testing.assert_close(after["exp_avg_sq"], before["exp_avg_sq"].repeat(2) / 4)


def test_moments_may_start_anew() -> None:
    trainer = at_growth(*DEEPER, "--grow.optimizer", "reset")
    grow(trainer)
    assert states(trainer) == {}
    trainer.train_step([next(iter(trainer.loaders.train.epoch(1)))])
    assert {int(state["step"]) for state in states(trainer).values()} == {1}


OPTIMIZERS = ["adamw", "sgd", "lamb", "lookahead_adamw"]
MORE = ["momentum", "adafactor", "lion", "madgrad", "adan", "muon", "rmsproptf", "nadamw"]


@pytest.mark.parametrize("opt", [*OPTIMIZERS, *(pytest.param(name, marks=SLOW) for name in MORE)])
@pytest.mark.parametrize(
    "words",
    [
        pytest.param([*IDENTITY, *WIDER], id="identity and duplicate"),
        pytest.param(DEEPER, id="insert", marks=SLOW),
    ],
)
def test_optimizers_go_through_growth_with_their_moments(opt: str, words: list[str], tmp_path: Path) -> None:
    words = [*WORDS, *words, "--opt", opt, "--lr", "1e-3", "--out", str(tmp_path)]
    trainer = trainer_of(*words, folder=RunFolder(config_of(*words)))
    trainer.fit()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(tensor.isfinite().all() for tensor in weights(trainer.objective.student).values())
    # And what was saved of it can be gone on with.
    again = trainer_of(*words, "--resume")
    again.restore()
    assert again.run.stage.number == 1
    assert states(again).keys() == states(trainer).keys()


# --- the losses' own weights, and the taps
# --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a teacher of twelve blocks."""
    sizes = ["img_size=8", "patch_size=4", "embed_dim=24", "depth=12", "depth_token_only=1", "num_heads=2"]
    return ["--teacher", "cait_xxs24_224", "--teacher-kwargs", *sizes, "--teacher-weights", "none"]


def pairs(trainer: Trainer) -> list[tuple[int, int]]:
    """(student's block, teacher's block) of each pair that is compared."""
    return [(pair.student.block, pair.teacher.block) for pair in trainer.objective.pairs]


ENDS = [0, 1, 2, 3, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("depths", "first"),
    [
        # Six blocks have a first three and a last three; those learn from the teacher's first and last three.
        ("6,12", [(0, 0), (1, 1), (2, 2), (3, 9), (4, 10), (5, 11)]),
        ("8,12", list(zip(range(8), ENDS, strict=True))),
        pytest.param("9,12", list(zip([0, 1, 2, 3, 5, 6, 7, 8], ENDS, strict=True)), marks=SLOW),
    ],
)
def test_the_first_four_and_last_four_blocks_learn_at_every_stage(
    depths: str, first: list[tuple[int, int]], teacher: list[str]
) -> None:
    words = [
        *WORDS,
        "--student-kwargs",
        "depth=12",
        *teacher,
        "--losses.embedding",
        "1",
        "--grow.depth",
        depths,
    ]
    trainer = trainer_of(*words, "--epochs", "2")
    assert pairs(trainer) == first
    before = weights(trainer.objective.losses)
    grow(trainer)
    assert pairs(trainer) == list(zip(ENDS, ENDS, strict=True))
    after = weights(trainer.objective.losses)
    # The projections stay with the pairs that they were learned for.
    for old, (_, block) in enumerate(first):
        kept = [name for name in before if name.startswith(f"embedding.{old}.")]
        assert kept
        for name in kept:
            assert torch.equal(after[name.replace(f".{old}.", f".{ENDS.index(block)}.", 1)], before[name])
    trainer.train_step([next(iter(trainer.loaders.train.epoch(0)))])
    assert all(math.isfinite(total) for total in trainer.meter.sums)


# --- mixed precision and compilation
# --------------------------------------------------------------------------------------------------------


def test_mixed_precision_goes_on_after_growth() -> None:
    trainer = at_growth(*IDENTITY, *WIDER, "--amp", "--amp-dtype", "bfloat16")
    grow(trainer)
    seen = []
    fc1 = trainer.objective.student.blocks[2].mlp.fc1
    fc1.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    trainer.train_epoch()
    assert seen == [torch.bfloat16] * 3
    assert all(tensor.dtype == torch.float32 for tensor in weights(trainer.objective.student).values())
    (growth,) = trainer.state.growths
    # Eight bits of mantissa.
    assert growth["after"]["val/loss"] == pytest.approx(growth["before"]["val/loss"], rel=2**-7)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=SLOW)])
def test_what_has_grown_is_compiled(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*WORDS, *IDENTITY, *WIDER, "--losses.ce", "1"]
    plain, compiled = trainer_of(*words), trainer_of(*words, "--compile", "--compile-backend", backend)
    losses = [each_step(plain, lambda trainer: list(trainer.meter.sums), monkeypatch)]
    graphs = []

    def looking(trainer: Trainer) -> list[float]:
        module = unwrap_model(trainer.objective.trainable_module).tapped
        assert module._orig_mod.model is trainer.objective.student is trainer.run.student
        graphs.append(counters["stats"]["unique_graphs"])
        return list(trainer.meter.sums)

    counters.clear()
    losses.append(each_step(compiled, looking, monkeypatch))
    assert len(compiled.objective.student.blocks) == 3
    # One network was compiled in the first step of either stage, and none in the others.
    assert 0 < graphs[0] == graphs[1] == graphs[2] < graphs[3] == graphs[4] == graphs[5]
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=1e-4, atol=1e-5)


# --- convolutions
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [None, "64-8-8-8,64-16-16-16"], ids=["deeper", "deeper and wider"])
def test_a_resnet_grows_in_the_loop(width: str | None) -> None:
    """With the statistics of BatchNorm, which what comes after growth depends on."""
    words = ["--model", "resnet18", "--model-kwargs", "layers=[1,2,1,2]", "channels=[64,16,16,16]"]
    words += ["--grow.depth", "1-1-1-1,1-2-1-2", "--grow.depth-operator", "identity"]
    if width is not None:
        words += ["--grow.width", width]
    trainer = trainer_of(*DIGITS, *words, "--batch-size", "300", "--epochs", "2", "--lr", "1e-2")
    trainer.train_epoch()
    trainer.end_epoch()
    before, statistics = logits(trainer), weights(trainer.objective.student)["layer1.0.bn1.running_var"]
    assert statistics.std() > 0
    grow(trainer)
    torch.testing.assert_close(logits(trainer), before, rtol=0, atol=1e-4)
    (growth,) = trainer.state.growths
    assert growth["after"] == pytest.approx(growth["before"], rel=1e-4)
    assert [len(stage) for stage in (trainer.run.student.layer2, trainer.run.student.layer4)] == [2, 2]
    trainer.train_epoch()
    assert all(tensor.isfinite().all() for tensor in weights(trainer.objective.student).values())
