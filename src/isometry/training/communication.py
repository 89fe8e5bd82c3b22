"""What relations between images come to where a step's images are spread, over processes or micro-batches, in words."""

from isometry.config import RunConfig
from isometry.files import format_bytes
from isometry.losses import BatchLoss, find_loss
from isometry.training.objective import Objective


def micro_batch_words(config: RunConfig, objective: Objective) -> str:
    """What accumulated batches are to the terms; empty where nothing is accumulated, or no term relates images."""
    names = [term.name for term in objective.terms if find_loss(term.name).relates_images]
    if config.grad_accum_steps == 1 or not names:
        return ""
    return (
        f"--grad-accum-steps {config.grad_accum_steps}: terms of labels see the whole step, but "
        f"{' and '.join(names)} {'relate' if len(names) > 1 else 'relates'} the images of one batch to each other, "
        "not those of all batches of the step"
    )


def traffic_words(config: RunConfig, objective: Objective) -> str:
    """What terms between images of all processes send a step, beside gathering tokens; empty without such terms.

    Bytes that a process hands to the others, each once; tokens and their gradients in float32.
    """
    sent, gathered = {}, 0
    for term in objective.terms:
        losses = [loss for loss in objective.losses[term.name] if isinstance(loss, BatchLoss)]
        if not losses or losses[0].relations == "local" or losses[0].takes_gates():
            continue
        sent[term.name] = sum(
            loss.sent_bytes(
                config.batch_size, pair.grid[0] * pair.grid[1], pair.student.width, pair.teacher.width
            )
            for loss, pair in zip(losses, objective.pairs, strict=True)
        )
    if not sent:
        return ""
    for pair in objective.pairs:
        tokens = config.batch_size * pair.grid[0] * pair.grid[1]
        gathered += 4 * tokens * (pair.student.width + pair.teacher.width)
    each = ", ".join(f"{name} {format_bytes(size)}" for name, size in sent.items())
    whole = " (whatever the batch is)" if "whole" in sent else ""
    return (
        f"each process sends the others, a step: {each}{whole}; gathering the tokens of {config.batch_size} images "
        f"would send {format_bytes(gathered)}"
    )
