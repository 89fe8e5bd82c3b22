"""Whether a run for boxes or masks that resumes has its images and annotations."""

from isometry.config import RunConfig
from isometry.data.inventory import Inventory, fingerprint
from isometry.training.checkpoint.run_state import LoopState
from isometry.training.data_changes import check_images, write_record


def validation_fingerprint(inventory: Inventory) -> int:
    """Of the images that scores are compared on; 0 without any."""
    images = inventory["images"].get("validation")
    return 0 if images is None else fingerprint(images)


def note_changes(config: RunConfig, now: Inventory, state: LoopState) -> list[str]:
    """Notes on images or annotations that are not those of the run; the best epoch is chosen anew on other ones.

    There must be as many as before, so that the order of images in an epoch stays the same.
    """
    record, notes = check_images(config.out, now, begun=state.seen > 0, allowed=True)
    if state.validation not in (0, validation_fingerprint(now)) and state.epoch < config.epochs:
        state.best = state.best_epoch = None
    write_record(config.out, record)
    return notes
