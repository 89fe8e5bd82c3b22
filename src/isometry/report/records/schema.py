"""Types of the tables of reports, and of the files that hold them: the columns that are read.

A table is validated as its rows are declared here, and is then used unchanged, with its keys in their order.
"""

from collections.abc import Callable
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, BaseModel, Field, GetPydanticSchema, StrictFloat, StrictInt
from pydantic_core import core_schema
from typing_extensions import TypedDict

Table = list[dict[str, Any]]


def _rows(kind: Any, check: Callable[[Table], None] = lambda rows: None) -> GetPydanticSchema:
    """Validates a table as a list of ``kind``, then calls ``check``, and keeps it as it is."""

    def unchanged(rows: Table, validate: Callable[[Table], Any]) -> Table:
        validate(rows)
        check(rows)
        return rows

    return GetPydanticSchema(
        lambda _, handler: core_schema.no_info_wrap_validator_function(
            unchanged, handler.generate_schema(list[kind])
        )
    )


def _same_keys(rows: Table) -> None:
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("not all rows have the same keys")


def _same_batch_sizes(rows: Table) -> None:
    if len({len(row["speeds"]) for row in rows}) > 1:
        raise ValueError("not all rows were timed at the same batch sizes")


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        raise ValueError("should be text, a number, true, false or null")
    return value


Cell = Annotated[Any, AfterValidator(_cell)]


class _Row(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, Cell]


class _ModelRow(_Row):
    model: str


class _ClassRow(_Row):
    name: str
    value: StrictFloat | None


class _StageRow(_Row):
    stage: StrictInt
    model: str
    by: str
    first_epoch: StrictInt
    epochs: StrictInt
    params: StrictFloat | None
    macs: StrictFloat | None
    seconds: StrictFloat | None
    full_seconds: StrictFloat | None
    before: StrictFloat | None
    after: StrictFloat | None
    score: str


class _TimesRow(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, StrictFloat]
    steps: StrictInt


class _SpeedRow(_Row):
    batch_size: StrictInt
    ms: StrictFloat
    images_per_s: StrictFloat


class _TimingRow(_SpeedRow):
    ms_low: StrictFloat
    ms_high: StrictFloat


class _FormRow(_Row):
    form: str
    speeds: list[_SpeedRow] = Field(min_length=1)


class _RuntimeRow(_Row):
    runtime: str
    speeds: list[_TimingRow] = Field(min_length=1)


Epochs = Annotated[Table, _rows(_Row)]
Models = Annotated[Table, _rows(_ModelRow)]
Classes = Annotated[Table, _rows(_ClassRow)]
Stages = Annotated[Table, _rows(_StageRow)]
Times = Annotated[Table, _rows(_TimesRow, _same_keys)]
Forms = Annotated[Table, _rows(_FormRow, _same_batch_sizes)]


class _DenseRow(_Row):
    figure: str
    of: str
    value: StrictFloat
    low: StrictFloat
    high: StrictFloat
    chance: StrictFloat | None = None
    k: StrictInt | None = None


Dense = Annotated[Table, _rows(_DenseRow), Field(min_length=1)]


class DenseFigures(TypedDict):
    """The "dense" of evaluation.json, as far as it is read."""

    figures: Dense
    weights: NotRequired[str]
    data: NotRequired[str]
    part: NotRequired[str]
    teacher: NotRequired[str]
    notes: NotRequired[list[str]]


class Evaluation(TypedDict):
    """evaluation.json, as far as it is read."""

    dense: NotRequired[DenseFigures]


class BenchedForm(TypedDict):
    """A form in bench.json, as far as it is read."""

    form: str
    top1: NotRequired[Cell]
    top1_by_class: NotRequired[Cell]
    top1_part: NotRequired[Cell]
    runtimes: Annotated[Table, _rows(_RuntimeRow, _same_batch_sizes), Field(min_length=1)]
    refused: NotRequired[dict[str, Any]]
    """Runtimes that the form does not run under, and why."""


class Bench(TypedDict):
    """bench.json, as far as it is read."""

    name: NotRequired[str]
    forms: list[BenchedForm]
