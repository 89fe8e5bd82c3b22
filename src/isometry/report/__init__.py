"""Pictures, tables and the one-file HTML report: pure functions of plain data (dicts, lists, numpy arrays).

Nothing here imports models, losses or the training loop; callers pass the figures in.
"""
