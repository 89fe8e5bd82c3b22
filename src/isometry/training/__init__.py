"""The loop, and what stands around it: optimizer, losses read, checkpoints, the run's folder, progress, signals."""
