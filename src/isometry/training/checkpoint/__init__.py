"""The run's folder and its checkpoints."""
