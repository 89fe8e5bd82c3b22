"""What a teacher says about augmented images, kept on disk and read by later runs: ``--teacher-cache``."""

from isometry.training.teacher_cache.cache import Place, TeacherCache
from isometry.training.teacher_cache.estimate import Estimate, estimate
from isometry.training.teacher_cache.identity import identity_of

__all__ = ["Estimate", "Place", "TeacherCache", "estimate", "identity_of"]
