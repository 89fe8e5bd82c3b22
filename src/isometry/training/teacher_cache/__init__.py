"""Teacher outputs for augmented training images, kept on disk and read by later runs: ``--teacher-cache``."""

from isometry.training.teacher_cache.cache import TeacherCache
from isometry.training.teacher_cache.estimate import Estimate, estimate
from isometry.training.teacher_cache.identity import identity_of

__all__ = ["Estimate", "TeacherCache", "estimate", "identity_of"]
