"""What a report says of a sharded teacher, found out before the processes part that hold it together."""

import torch
from torch import Tensor

from isometry.geometry import block_features, compared_images
from isometry.outcome import figures_of
from isometry.sharding import TeacherSeen, is_sharded
from isometry.training.loop import Trainer


def see_teacher(trainer: Trainer) -> None:
    """Fills ``trainer.run.teacher_seen`` where the teacher is sharded; all processes must come here."""
    run, world, view = trainer.run, trainer.world, trainer.objective.teacher_view
    if run.teacher is None or not is_sharded(run.teacher):
        return
    figures, features = figures_of(trainer, run.teacher), list[Tensor]()
    if trainer.objective.pairs and view is not None:
        if world.main:
            images = compared_images(trainer.loaders, trainer.preprocess)
        else:
            # Any image: this process only lends its pieces.
            images = torch.zeros(1, 1, *view.size, device=world.device)
        features = block_features(run.teacher, view(images))
    run.teacher_seen = TeacherSeen(figures, features)
