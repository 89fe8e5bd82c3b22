"""Slow and plain versions of what the package computes, in float64, written from the equations."""
