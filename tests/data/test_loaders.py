"""The loaders of a run together: when validation images are read ahead."""

from typing import Any

import pytest

from helpers.runs import TINY_STUDENT, trainer_of
from isometry.data import Loaders


class Counted:
    """A loader that counts what it is asked for."""

    def __init__(self, workers: int) -> None:
        self.workers, self.asked = workers, 0

    def prefetch(self) -> None:
        self.asked += 1


@pytest.mark.parametrize(("workers", "first"), [(0, 2), (1, 2), (3, 6)])
def test_validation_is_read_ahead_in_the_last_steps_alone(workers: int, first: int) -> None:
    train: Any = Counted(workers)
    val: Any = Counted(workers)
    loaders = Loaders(train, val, None)
    asked = [(loaders.prefetch_validation(left), val.asked)[1] for left in range(10, -1, -1)]
    assert asked == [max(0, first - left + 1) for left in range(10, -1, -1)]
    Loaders(train, None, None).prefetch_validation(1)


def test_an_epoch_asks_for_validation_images_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(*TINY_STUDENT, "--epochs", "1", "--losses.ce", "1")
    steps_left: list[int] = []
    monkeypatch.setattr(Loaders, "prefetch_validation", lambda self, left: steps_left.append(left))
    trainer.train_epoch()
    assert steps_left == [6, 5, 4, 3, 2, 1]
