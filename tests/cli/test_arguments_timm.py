"""timm's dialect of options, as a command line's user writes it."""

from dataclasses import asdict

import pytest

from isometry.cli.arguments import parse
from isometry.cli.compare_plan import CompareConfig
from isometry.config import RunConfig


def changes(words: str) -> dict:
    plain, config = asdict(RunConfig()), parse(RunConfig, words.split())
    return {name: value for name, value in asdict(config).items() if value != plain[name]}


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("", {}),
        ("-b 64", {"batch_size": 64}),
        ("--batch-size=64", {"batch_size": 64}),
        ("--batch_size 64 -j 0", {"batch_size": 64, "workers": 0}),
        ("--student vit_tiny_patch16_224", {"model": "vit_tiny_patch16_224"}),
        ("--amp --model-ema", {"amp": True, "model_ema": True}),
        ("--amp false", {}),
        ("--amp true", {"amp": True}),
        ("--lr 1e-3 --weight-decay 0", {"lr": 1e-3, "weight_decay": 0.0}),
        ("--lr 1", {"lr": 1.0}),
        ("--scale 0.5 1.0", {"scale": [0.5, 1.0]}),
        ("--scale 0.5,1", {"scale": [0.5, 1.0]}),
        ("--scale [0.5,1]", {"scale": [0.5, 1.0]}),
        ("--opt-betas 0.9 0.95", {"opt_betas": [0.9, 0.95]}),
        ("--student-kwargs depth=6 embed_dim=48", {"model_kwargs": {"depth": 6, "embed_dim": 48}}),
        ("--model-kwargs act_layer=gelu", {"model_kwargs": {"act_layer": "gelu"}}),
        ("--model-kwargs norm.eps=1e-6", {"model_kwargs": {"norm": {"eps": 1e-6}}}),
        ("--log tensorboard wandb", {"log": ["tensorboard", "wandb"]}),
        ("--losses.whole 4 --losses.soft 1", {"losses": {"whole": 4.0, "soft": 1.0}}),
        ("--losses whole=4 soft=1", {"losses": {"whole": 4.0, "soft": 1.0}}),
        ("--losses.soft.temperature 2", {"losses": {"soft": {"temperature": 2}}}),
        ("--losses.random.weight 0.2 --losses.random.k 9", {"losses": {"random": {"weight": 0.2, "k": 9}}}),
        ("--losses.random 0.2 --losses.random.k 9", {"losses": {"random": {"weight": 0.2, "k": 9}}}),
        ("--losses random.weight=1e-3 random.k=9", {"losses": {"random": {"weight": 1e-3, "k": 9}}}),
        ("--losses.random.k 9 --losses.random 0.2", {"losses": {"random": 0.2}}),
        ("--taps.student 0,1 --taps.teacher 2,3", {"taps": {"student": "0,1", "teacher": "2,3"}}),
        ("--teacher-weights none", {"teacher_weights": "none"}),
        ("--seed -3", {"seed": -3}),
    ],
)
def test_timms_dialect(words, changed):
    assert changes(words) == changed


@pytest.mark.parametrize("recipes", ["{weight: 0.5, k: 12}", "0.5"])
def test_an_option_of_a_loss_leaves_the_recipes_others(tmp_path, recipes):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"losses: {{intra: 4, random: {recipes}}}")
    losses = parse(RunConfig, f"--config {path} --losses.random.k 9".split()).losses
    assert losses == {"intra": 4.0, "random": {"weight": 0.5, "k": 9}}


def test_options_of_a_loss_in_overrides():
    words = "--overrides.losses.random.k 3 --overrides.losses.random.weight 0.5 --overrides.epochs 2"
    overrides = parse(CompareConfig, words.split()).overrides
    assert overrides == {"losses": {"random": {"k": 3, "weight": 0.5}}, "epochs": 2}
