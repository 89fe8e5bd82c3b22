"""A finished network measured: accuracy, features, time and memory."""
