"""Notes on terms that relate images, with several processes or accumulated gradients."""

import torch

from helpers.runs import DIGITS, STUDENT_KWARGS, TEACHER_KWARGS, config_of
from isometry.distributed import World
from isometry.training.assemble import Run, assemble
from isometry.training.communication import accumulation_note, communication_note

WORDS = [*DIGITS, "--student", "vit_tiny_patch16_224", "--student-kwargs", *STUDENT_KWARGS]
WORDS += ["--teacher", "cait_xxs24_224", "--teacher-kwargs", *TEACHER_KWARGS, "--teacher-weights", "none"]


def assembled(*words: str, processes: int = 1) -> Run:
    return assemble(config_of(*WORDS, *words), World(0, processes, torch.device("cpu")))


def test_terms_that_relate_images_see_the_micro_batch_and_others_are_not_named() -> None:
    run = assembled(
        "--losses.soft", "1", "--losses.whole", "1", "--losses.random", "1", "--grad-accum-steps", "4"
    )
    (note,) = accumulation_note(4, run.terms)
    assert note.startswith("--grad-accum-steps 4: ")
    assert "whole and random relate the images of one batch" in note
    assert "soft" not in note
    assert note in run.notes


def test_without_such_terms_or_accumulation_there_is_no_note() -> None:
    labels = assembled("--losses.soft", "1", "--losses.intra", "1", "--grad-accum-steps", "4")
    assert accumulation_note(4, labels.terms) == []
    alone = assembled("--losses.whole", "1")
    assert accumulation_note(1, alone.terms) == []
    assert not [note for note in alone.notes if "every process" in note]


def test_sent_bytes_are_noted_beside_those_of_gathering() -> None:
    """Two pairs of blocks of 16 and 32 channels; 4 tokens an image, 150 images a process."""
    run = assembled("--losses.whole", "1", processes=2)
    matrices, tokens = 2 * 8 * 48 * 49 // 2, 2 * 150 * 4 * 48 * 4
    (note,) = communication_note(150, run.objective)
    assert f"whole {matrices / 2**10:.3g} KiB" in note
    assert f"the tokens of 150 images would send {tokens / 2**10:.3g} KiB" in note
    assert note in run.notes
    smaller = assembled("--losses.whole", "1", "--batch-size", "15", processes=2)
    assert f"whole {matrices / 2**10:.3g} KiB" in communication_note(15, smaller.objective)[0]


def test_local_terms_send_nothing() -> None:
    for words in (["--relations", "local", "--losses.whole", "1"], ["--losses.intra", "1"]):
        run = assembled(*words, processes=2)
        assert communication_note(150, run.objective) == []
    one = assembled("--losses.whole.relations", "local", "--losses.inter", "1", processes=2)
    assert "sends the others inter " in communication_note(150, one.objective)[0]
