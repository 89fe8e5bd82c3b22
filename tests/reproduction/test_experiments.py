"""A row's experiment differs from the paper's method as the row says, on the digits and at full size."""

import re
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
import timm
from reproduction.command import wanted_runs
from reproduction.experiments import experiments
from reproduction.page import AS_PRINTED
from reproduction.published import published

from isometry.cli.arguments import parse
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.losses.base import parse_terms
from isometry.models.names import check_name
from isometry.models.spec import ModelSpec
from isometry.recipes import find_recipe

KNOWN = experiments()
OUT = Path("out")
PAPER = "manifold-s24-tiny"
RELATIONS = ("inter", "intra", "random")
IMAGES, PATCHES, DRAWN = 128, 196, 192
"""Batch size, patches per image and k in the paper."""


def digits(name: str) -> RunConfig:
    return KNOWN.plan(name, 0, OUT, {})


def full(name: str) -> RunConfig:
    """The config of a row's command for 8 GPUs, split as a shell splits it."""
    words = shlex.split(KNOWN.runs[name].full_command(name))
    assert words[:6] == ["torchrun", "--nproc_per_node", "8", "-m", "isometry", words[5]]
    return parse(RunConfig, words[6:])


def terms(config: RunConfig) -> dict[str, tuple[float, dict]]:
    return {term.name: (term.weight, term.options) for term in parse_terms(config.losses)}


def numbers(cell: str) -> list[int]:
    """Blocks as the paper counts them: "1–4, 21–24"."""
    found = []
    for part in cell.split(", "):
        first, _, last = part.partition("–")
        found += range(int(first), int(last or first) + 1)
    return found


def blocks(chosen: str | list[int]) -> list[int]:
    return [int(number) for number in chosen.split(",")] if isinstance(chosen, str) else list(chosen)


def test_experiments_are_those_of_the_published_runs():
    paper = published()
    wanted = {run for table in paper.tables.values() for run in table.runs} | set(paper.figure.runs)
    wanted |= {AS_PRINTED}
    assert wanted == set(KNOWN.runs)
    assert set(wanted_runs(list(paper.tables))) == wanted


def test_a_run_of_several_tables_is_trained_once():
    names = wanted_runs([3, 4, 5, 6])
    assert names.count(PAPER) == 1
    assert len(names) == len(set(names)) == 4 + 3 + 3 + 2


@pytest.mark.parametrize("name", KNOWN.runs)
def test_rows_differ_in_terms_blocks_and_teacher_only(name):
    mine, base = asdict(digits(name)), asdict(digits(f"manifold-s24-{KNOWN.runs[name].student}"))
    changed = {key for key in mine if mine[key] != base[key]} - {"out"}
    assert changed <= {"losses", "taps", "teacher"} | ({"model"} if name == "without-teacher" else set())
    assert (changed == set()) is name.startswith("manifold-s24")


@pytest.mark.parametrize("name", KNOWN.runs)
def test_the_full_command_has_networks_of_timm(name):
    config = full(name)
    check_name(ModelSpec(config.model), "--model")
    if config.teacher:
        check_name(ModelSpec(config.teacher), "--teacher")
    assert bool(config.teacher) is bool(KNOWN.runs[name].teacher)
    assert Path(find_recipe(f"recipes/{KNOWN.runs[name].recipe}")).is_file()


@pytest.mark.parametrize("name", KNOWN.runs)
def test_terms_and_kinds_of_network_are_the_same_at_full_size(name):
    here, there = digits(name), full(name)
    assert list(terms(here)) == list(terms(there))
    assert here.model == there.model
    kinds = {"s24": "cait_s24_224", "xxs24": "cait_xxs24_224", "regnety": "regnety_160", "": ""}
    assert there.teacher == kinds[KNOWN.runs[name].teacher]
    recipe = KNOWN.teachers.get(KNOWN.runs[name].teacher)
    if recipe:
        assert parse(RunConfig, ["--config", find_recipe(recipe)]).model == there.teacher
    for term in terms(here):
        # Relation terms are scaled, by the same factor in all rows.
        ours = digits(PAPER) if term in RELATIONS and name != AS_PRINTED else there
        theirs = full(PAPER) if term in RELATIONS and name != AS_PRINTED else there
        change = terms(here)[term][0] / terms(ours)[term][0]
        assert change == pytest.approx(terms(there)[term][0] / terms(theirs)[term][0])


def test_hard_labels_are_equation_6():
    for name in (run for run in KNOWN.runs if run.startswith("hard")):
        assert terms(digits(name)) == terms(full(name)) == {"ce": (0.5, {}), "hard": (0.5, {})}


@pytest.mark.parametrize("number", [3, 4, 6])
def test_weights_and_k_are_those_of_the_row(number):
    for row in published().tables[number].rows:
        here, there = terms(digits(row.run)), terms(full(row.run))
        cells = row.cells
        if number == 3:
            names = {"L_ci": "inter", "L_cp": "intra", "L_rs": "random"}
            assert {names[name] for name in cells[0].split(", ")} == set(there) - {"ce", "hard"}
        elif number == 4:
            assert (there["intra"][0], there["random"][0]) == (float(cells[0]), float(cells[1]))
            assert there["random"][1] == {"k": DRAWN}
        elif cells[0] == "0":
            assert "random" not in here
        else:
            assert there["random"] == (0.2, {"k": int(cells[0])})
            assert here["random"][0] == terms(digits(PAPER))["random"][0]
            # The same multiple of the patches of an image, 16 here, as of 192 in the paper.
            assert here["random"][1]["k"] / 16 == int(cells[0]) / DRAWN


def test_blocks_at_full_size_are_those_of_the_row():
    for row in published().tables[5].rows:
        config = full(row.run)
        if row.run == PAPER:
            assert config.taps.teacher is None
            continue
        for chosen, cell in zip((config.taps.teacher, config.taps.student), row.cells, strict=True):
            assert [block + 1 for block in blocks(chosen)] == numbers(cell)


def test_blocks_on_the_digits_are_at_half_the_depth_of_those_of_the_row():
    """Block n of the paper becomes block n/2, rounded up, in the network of half the depth."""
    for row in published().tables[5].rows:
        config = digits(row.run)
        pairs = blocks(config.taps.teacher), blocks(config.taps.student)
        assert len(pairs[0]) == len(pairs[1])
        for chosen, cell, depth in zip(pairs, row.cells, (12, 6), strict=True):
            assert all(0 <= block < depth for block in chosen)
            halved = {(number + 1) // 2 for number in numbers(cell)}
            # Half of 9 blocks is 4.5; the row has 5.
            assert {block + 1 for block in chosen} <= halved
            assert len(chosen) >= len(numbers(cell)) / 2


def test_an_entry_of_each_map_has_the_weight_of_the_paper():
    config = digits(PAPER)
    network = timm.create_model(config.model, img_size=16, in_chans=1, num_classes=10, **config.model_kwargs)
    patches, batch = network.patch_embed.num_patches, config.batch_size
    weights = {name: weight for name, (weight, _) in terms(config).items()}
    k = terms(config)["random"][1]["k"]
    within = weights["intra"] * patches**2
    assert within == 1
    here = weights["inter"] * batch**2 / within, weights["random"] * k**2 / within
    paper = IMAGES**2 / PATCHES**2, 0.2 * DRAWN**2 / PATCHES**2
    assert here[0] == pytest.approx(paper[0], rel=0.001)
    assert here[1] == pytest.approx(paper[1], rel=0.05)


def test_seeds_differ_in_the_seed_only_and_share_the_teacher():
    first, second = (asdict(KNOWN.plan(PAPER, seed, OUT, {})) for seed in (0, 1))
    assert {key for key in first if first[key] != second[key]} == {"seed", "out"}
    assert first["teacher"] == "local-dir:out/teachers/s24/student"


def test_only_the_needed_teachers_are_trained():
    assert set(KNOWN.teacher_plans(OUT, wanted_runs([3]), {})) == {"s24"}
    assert set(KNOWN.teacher_plans(OUT, wanted_runs([2]), {})) == {"s24", "xxs24", "regnety"}
    assert list(KNOWN.teacher_plans(OUT, ["without-teacher"], {})) == []


def test_overrides_apply_to_every_run_but_terms_not_to_teachers():
    changed = {"epochs": 3, "losses": {"ce": 1}}
    assert KNOWN.plan(PAPER, 0, OUT, changed).losses == {"ce": 1}
    (teacher,) = KNOWN.teacher_plans(OUT, [PAPER], {"epochs": 3, "losses": {"soft": 1}}).values()
    assert (teacher.epochs, teacher.losses) == (3, {"ce": 1})


@pytest.mark.parametrize(
    ("overrides", "named"), [({"epochz": 1}, "epochz"), ({"workers": 2}, "--overrides workers")]
)
def test_invalid_overrides_are_refused_by_name(overrides, named):
    with pytest.raises(UserError, match=re.escape(named)):
        KNOWN.plan(PAPER, 0, OUT, overrides)
