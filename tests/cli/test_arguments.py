"""Command lines and recipes: options in timm's style, precedence, and error messages."""

from dataclasses import asdict, fields, is_dataclass
from typing import get_type_hints

import pytest

from isometry.cli.arguments import parse, parse_given, recipe_named
from isometry.cli.commands import COMMANDS
from isometry.cli.compare_plan import CompareConfig
from isometry.cli.help import help_text
from isometry.config import PruneConfig, RunConfig, TapsConfig
from isometry.errors import UserError
from isometry.recipes import config_to_yaml, read_saved, recipe_path, with_overrides


def run_config(words: str) -> RunConfig:
    return parse(RunConfig, words.split())


def changes(config: RunConfig) -> dict:
    plain = asdict(RunConfig())
    return {name: value for name, value in asdict(config).items() if value != plain[name]}


@pytest.fixture
def recipe(tmp_path):
    def write(text: str):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_command_line_beats_the_recipe_which_beats_the_defaults(recipe):
    path = recipe("epochs: 7\nb: 9\nstudent: resnet18\nlosses: {soft: 1, whole: 4}\ntaps: {student: '0,1'}\n")
    config = run_config(f"--config {path} --epochs 3 --losses.whole 2 --taps.teacher 1,2")
    assert changes(config) == {
        "epochs": 3,
        "batch_size": 9,
        "model": "resnet18",
        "losses": {"soft": 1.0, "whole": 2.0},
        "taps": {"student": "0,1", "teacher": "1,2"},
    }
    assert isinstance(config.taps, TapsConfig)
    assert run_config(f"--config={path}").epochs == 7


def test_an_empty_recipe_changes_nothing(recipe):
    assert run_config(f"--config {recipe('# nothing')}") == RunConfig()


def test_numbers_of_a_recipe_may_be_written_as_people_do(recipe):
    config = run_config(
        f"--config {recipe('lr: 1e-3' + chr(10) + 'min-lr: 0' + chr(10) + 'taps: {student: [0, 1]}')}"
    )
    assert (config.lr, config.min_lr, config.taps.student) == (1e-3, 0.0, [0, 1])


def test_a_resolved_run_reads_back_as_it_was(tmp_path):
    config = run_config(
        "--losses.soft.temperature 2 --losses.ce 1 --taps.student 0,1 --scale 0.5 1 --lr 1e-3 --seed 3"
    )
    (tmp_path / "config.yaml").write_text(config_to_yaml(config))
    assert read_saved(tmp_path / "config.yaml") == (config, [])
    assert run_config(f"--config {tmp_path / 'config.yaml'}") == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epoch 3", "--epoch: no such option; did you mean --epochs"),
        ("--batchsize 3", "--batchsize: no such option; did you mean --batch-size"),
        ("--zzz 3", "--zzz: no such option; --help lists them all"),
        ("--taps.students 1", "--taps.students: no such option; did you mean --taps.student"),
        ("--taps 1", "--taps: no such option; did you mean --taps."),
        ("--log-tensorboard", "--log-tensorboard: no such option; did you mean --log"),
        ("--epochs", "--epochs: no value given"),
        ("--epochs x", "--epochs x: expected a whole number"),
        ("--epochs 1.5", "--epochs 1.5: expected a whole number"),
        ("--epochs 1 2", "--epochs: takes one value, and 2 were given (1 2)"),
        ("--lr fast", "--lr fast: expected a number"),
        ("--amp perhaps", "--amp perhaps: expected true or false"),
        ("--amp-dtype int8", "--amp-dtype int8: expected bfloat16 or float16"),
        ("--scale a b", "--scale"),
        ("--student-kwargs depth", "--model-kwargs depth: expected names with values"),
        ("--student-kwargs depth=1 x", "--student-kwargs x: give key=value pairs"),
        ("--losses.soft x", "--losses.soft x: expected a finite number"),
        ("stray", "stray: expected an option's name here"),
        ("--config", "--config: give one file"),
        ("--config nowhere.yaml", "--config nowhere.yaml: can't be read (No such file or directory)"),
    ],
)
def test_what_cant_be_understood_is_said_in_one_line(words, message):
    with pytest.raises(UserError) as error:
        run_config(words)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "epoch: no such key; did you mean epochs?"),
        ("zzz: 3", "zzz: no such key"),
        ("taps: {students: 1}", "taps.students: no such key; did you mean student?"),
        ("epochs: soon", "--epochs soon: expected a whole number"),
        ("losses: [soft]", "--losses"),
        ("model:", "model: has no value; give one, or take the line out"),
        ("losses: null", "losses: has no value"),
        ("b:", "batch_size: has no value"),
        ("prune: {method:}", "prune.method: has no value"),
        ("taps: 3", "taps: must hold student and teacher, not 3"),
        ("- epochs", "must hold keys and values"),
        ("epochs: [", "is not YAML"),
        ("\x00", "is not YAML"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said_with_its_name(recipe, text, message):
    path = recipe(text)
    with pytest.raises(UserError) as error:
        run_config(f"--config {path}")
    assert str(error.value).startswith(f"--config {path}: {message}")
    assert "\n" not in str(error.value)


def test_overrides_are_checked_as_recipes_are():
    base = run_config("--epochs 7 --losses.soft 1")
    assert changes(with_overrides(base, {"b": 3, "losses": {"ce": 1}}, "variants.x")) == {
        "epochs": 7,
        "batch_size": 3,
        "losses": {"ce": 1.0},
    }
    for overrides, message in (
        ({"epoch": 1}, "variants.x: epoch: no such key"),
        ({"epochs": "x"}, "variants.x: --epochs x"),
        ({"epochs": None}, "variants.x: epochs: has no value"),
    ):
        with pytest.raises(UserError, match=message):
            with_overrides(base, overrides, "variants.x")


def test_a_comparison_is_parsed_the_same_way(recipe):
    path = recipe("base: b.yaml\nvariants: {a: {losses: {ce: 1}}, b: {}}\nseeds: 3")
    config = parse(
        CompareConfig, ["--config", str(path), "--seeds", "2", "--overrides", "epochs=2", "lr=0.1"]
    )
    assert (config.seeds, list(config.variants)) == (2, ["a", "b"])
    assert config.overrides == {"epochs": 2, "lr": 0.1}


def test_where_a_recipe_is(tmp_path):
    assert recipe_named(["--config", "a.yaml", "--epochs", "3"]) == "a.yaml"
    assert recipe_named(["--config=a.yaml"]) == "a.yaml"
    assert recipe_named(["--epochs", "3"]) == ""
    assert recipe_path("b.yaml", tmp_path / "a.yaml") == tmp_path / "b.yaml"
    assert recipe_path(str(tmp_path / "c.yaml"), "elsewhere/a.yaml") == tmp_path / "c.yaml"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_in_lines_that_fit(command):
    kind = COMMANDS[command].kind
    text = help_text(command, COMMANDS[command])
    for name, hint in get_type_hints(kind).items():
        parts = [f"{name}.{field.name}" for field in fields(hint)] if is_dataclass(hint) else [name]
        assert all(f"  --{part.replace('_', '-')}" in text for part in parts)
    options = text.partition("usage:")[2]
    assert max(map(len, options.splitlines())) <= 100


# --- options in a group that have a name of their own


@pytest.mark.parametrize(
    ("words", "pruning"),
    [
        ("--keep-rate 0.6", {"keep_rate": 0.6}),
        ("--keep_rate=0.6 --compact", {"keep_rate": 0.6, "compact": True}),
        (
            "--prune.keep-rate 0.6 --from-scratch --prune.group 8",
            {"keep_rate": 0.6, "from_scratch": True, "group": 8},
        ),
        ("--keep-rate 0.6 --keep-rate 0.7", {"keep_rate": 0.7}),
        ("--keep-rate 1 --compact false", {"keep_rate": 1.0}),
    ],
)
def test_short_names_of_pruning(words, pruning):
    assert run_config(words).prune == PruneConfig(**pruning)


@pytest.mark.parametrize(
    "recipe",
    [
        "prune: {keep_rate: 0.6, method: l1}",
        "keep_rate: 0.6\nprune: {method: l1}",
        "prune: {method: l1}\nkeep-rate: 0.6",
    ],
)
def test_short_names_in_a_recipe(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    assert parse(RunConfig, ["--config", str(path)]).prune == PruneConfig(0.6, method="l1")
    assert parse(RunConfig, ["--config", str(path), "--keep-rate", "0.7"]).prune == PruneConfig(
        0.7, method="l1"
    )


def test_short_names_in_overrides():
    config = with_overrides(RunConfig(), {"keep_rate": 0.5, "student": "resnet18"}, "--overrides")
    assert (config.prune, config.model) == (PruneConfig(0.5), "resnet18")
    with pytest.raises(UserError, match=r"^--overrides: kep_rate: .*keep_rate"):
        with_overrides(RunConfig(), {"kep_rate": 0.5}, "--overrides")


def test_help_gives_the_short_names():
    text = help_text("prune", COMMANDS["prune"])
    for name in ("keep-rate", "compact", "from-scratch"):
        assert f"--prune.{name}, --{name}\n" in text


# --- models that are folders


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for folder in ("run/student", "alone", "resnet18", "begun/last"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("run/student", "alone"):
        (tmp_path / folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("run", "local-dir:run/student"),
        ("run/", "local-dir:run/student"),
        ("./run/student", "local-dir:run/student"),
        ("alone", "local-dir:alone"),
        ("local-dir:alone", "local-dir:alone"),
        # A folder without a network in it may be called as a model is.
        ("resnet18", "resnet18"),
        ("begun", "begun"),
        ("", ""),
    ],
)
@pytest.mark.usefixtures("folders")
def test_a_folder_with_a_network_is_a_model(given, meant, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: '{given}'\nteacher: '{given}'\n")
    for config in (
        parse(RunConfig, [f"--model={given}", f"--teacher={given}"]),
        parse(RunConfig, ["--config", str(path)]),
        with_overrides(RunConfig(), {"model": given, "teacher": given}, ""),
    ):
        assert (config.model, config.teacher) == (meant, meant)


def test_an_absolute_folder_stays_so(folders):
    assert run_config(f"--model {folders}/run").model == f"local-dir:{folders}/run/student"


def test_what_is_given_is_known_also_where_it_is_the_default(tmp_path):
    recipe = tmp_path / "some.yaml"
    recipe.write_text("epochs: 300\nstudent: resnet18\n", encoding="utf-8")
    config, given = parse_given(RunConfig, ["--config", str(recipe), "-b", "128", "--losses.ce", "1"])
    assert (config.epochs, config.batch_size) == (RunConfig.epochs, RunConfig.batch_size)
    assert given == {"epochs", "model", "batch_size", "losses"}
