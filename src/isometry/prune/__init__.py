"""Dynamic pruning: gates on a network, their thresholds, and inference that computes only what they keep."""
