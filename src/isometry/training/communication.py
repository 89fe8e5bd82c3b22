"""Notes on terms that relate images to each other, if the images of a step are spread over processes or batches."""

from isometry.files import format_bytes
from isometry.losses import BatchLoss
from isometry.losses.base import Term
from isometry.training.objective import Objective


def accumulation_note(steps: int, terms: list[Term]) -> list[str]:
    """A note on terms that relate images, if gradients are accumulated over ``steps`` batches; none without them."""
    names = [term.name for term in terms if term.loss.relates_images]
    if steps == 1 or not names:
        return []
    return [
        f"--grad-accum-steps {steps}: terms of labels see the whole step, but {' and '.join(names)} "
        f"{'relate' if len(names) > 1 else 'relates'} the images of one batch to each other, not those of all batches "
        "of the step"
    ]


def communication_note(batch_size: int, objective: Objective) -> list[str]:
    """A note on the bytes that terms between images of all processes send in a step; none without such terms.

    Counts the bytes that a process with that batch size sends to the others, once each; tokens and their gradients in
    float32.
    """
    sent, gathered = {}, 0
    for term in objective.terms:
        losses = [loss for loss in objective.losses[term.name] if isinstance(loss, BatchLoss)]
        if not losses or losses[0].relations == "local" or losses[0].scope() != "block":
            continue
        sent[term.name] = sum(
            loss.sent_bytes(batch_size, pair.grid[0] * pair.grid[1], pair.student.width, pair.teacher.width)
            for loss, pair in zip(losses, objective.pairs, strict=True)
        )
    if not sent:
        return []
    for pair in objective.pairs:
        tokens = batch_size * pair.grid[0] * pair.grid[1]
        gathered += 4 * tokens * (pair.student.width + pair.teacher.width)
    each = ", ".join(f"{name} {format_bytes(size)}" for name, size in sent.items())
    constant = " (for any batch size)" if "whole" in sent else ""
    return [
        f"in each step every process sends the others {each}{constant}; gathering the tokens of {batch_size} images "
        f"would send {format_bytes(gathered)}"
    ]
