"""Small, fast vision models that keep the geometry of a large one's feature space."""

__version__ = "0.1.0"
