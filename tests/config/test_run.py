"""What a run is: options, and names that mean the same."""

from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest

from isometry.config import ALIASES, FREE_ON_RESUME, RunConfig, canonical


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("batch-size", "batch_size"),
        ("b", "batch_size"),
        ("student", "model"),
        ("student-kwargs", "model_kwargs"),
        ("taps.student", "taps.student"),
        ("losses.my-loss", "losses.my-loss"),
        ("student-kwargs.depth", "model_kwargs.depth"),
        ("keep-rate", "prune.keep_rate"),
    ],
)
def test_names_that_mean_the_same(given, meant):
    assert canonical(given) == meant
    assert canonical(meant) == meant


def test_every_alias_and_every_free_option_is_an_option():
    names = {field.name for field in fields(RunConfig)}
    groups = {name: kind for name, kind in get_type_hints(RunConfig).items() if is_dataclass(kind)}
    inside = {f"{name}.{field.name}" for name, kind in groups.items() for field in fields(kind)}
    assert set(ALIASES.values()) <= names | inside
    assert names >= FREE_ON_RESUME
    assert not set(ALIASES) & names
