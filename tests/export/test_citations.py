"""A card cites the papers of the methods that its run used."""

import re

import pytest

from isometry.config import GrowConfig, PruneConfig, RunConfig
from isometry.export.citations import papers

DISTILLED = {"teacher": "cait_s24_224", "losses": {"soft": 1, "whole": 4}}
GROWN = {"grow": GrowConfig(depth="6,12")}
GATED = {"prune": PruneConfig(keep_rate=0.6)}


def papers_of(**options):
    config = RunConfig(**options)
    return papers(config, config.grow, config.prune)


def keys(**options):
    return [re.match(r"@inproceedings\{(\w+),", paper)[1] for paper in papers_of(**options)]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"losses": {"ce": 1}}, []),
        (DISTILLED, ["hao2022manifold"]),
        ({**DISTILLED, "losses": {"soft": 1, "whole": 0}}, []),
        ({**DISTILLED, "losses": {"soft": 1}}, []),
        (
            {**DISTILLED, "losses": {"whole": 1, "nkd": 1, "dkd": 0, "orthogonal": 1}},
            ["hao2022manifold", "yang2023nkd", "miles2024vkd"],
        ),
        (GROWN, ["ding2023expansion"]),
        (GATED, ["tang2021manidp"]),
        ({"prune": PruneConfig(keep_rate=0.6, method="l1")}, []),
        ({**DISTILLED, **GROWN, **GATED}, ["hao2022manifold", "ding2023expansion", "tang2021manidp"]),
    ],
)
def test_papers_of_the_methods_used_are_cited(options, wanted):
    assert keys(**options) == wanted


def test_every_entry_is_valid_bibtex():
    for paper in papers_of(
        teacher="a", losses={"whole": 1, "nkd": 1, "dkd": 1, "orthogonal": 1}, **GROWN, **GATED
    ):
        assert paper.count("{") == paper.count("}")
        for name in ("title", "author", "booktitle", "year"):
            assert re.search(rf"^  {name} += \{{.+", paper, re.MULTILINE)
