"""Whether a run for boxes or masks that resumes has its images and annotations."""

from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from isometry.config import RunConfig
from isometry.data.dense.sources import DenseSources
from isometry.data.inventory import Inventory, fingerprint
from isometry.errors import UserError
from isometry.parsing import validate
from isometry.training.checkpoint.files import Checkpoint
from isometry.training.checkpoint.run_state import LoopState
from isometry.training.data_changes import check_images, write_record


class SavedState(TypedDict):
    """The state in ``last/checkpoint.json``."""

    data: str
    loop: LoopState
    metrics: dict[str, NonNegativeInt]
    optimizer: dict[str, dict[str, dict[str, Any]]]


def saved_state(checkpoint: Checkpoint, sources: DenseSources, run: Path) -> SavedState:
    """The state in the checkpoint of a run.

    Raises:
        UserError: it is of other data.
        ValueError: it is of another form.
    """
    state: SavedState = validate(checkpoint.state, SavedState)
    if state["data"] != (now := data_text(sources)):
        raise UserError(
            f"--resume: the data is not that of the run in {run}: it was {state['data']}, and is {now} now; put it "
            "back, or start a new run with another --out"
        )
    return state


def data_text(sources: DenseSources) -> str:
    """The data of a run as its checkpoints name them."""
    return f"{sources.description}: {', '.join(sources.class_names)}"


def validation_fingerprint(inventory: Inventory) -> int:
    """Of the images that scores are compared on; 0 without any."""
    images = inventory["images"].get("validation")
    return 0 if images is None else fingerprint(images)


def note_changes(config: RunConfig, now: Inventory, state: LoopState) -> list[str]:
    """Notes on images or annotations that are not those of the run; the best epoch is chosen anew on other ones.

    There must be as many as before, so that the order of images in an epoch stays the same.
    """
    ended = state.epoch >= config.epochs
    record, notes = check_images(config.out, now, begun=state.seen > 0, ended=ended, allowed=True)
    if state.validation not in (0, validation_fingerprint(now)) and not ended:
        state.best = state.best_epoch = None
    write_record(config.out, record)
    return notes
