"""Pictures, tables and the one-file HTML report: pure functions of plain data (dicts, lists, numpy arrays).

Nothing here knows of models, losses or the loop; a caller gathers the figures and hands them over.
"""

from isometry.report.comparison import comparison_picture
from isometry.report.data import Example, ImageGroup, PruningData, RelationMaps, ReportData, SaliencyMaps
from isometry.report.growth import growth_sentence
from isometry.report.headline import headline
from isometry.report.maps import maps_picture
from isometry.report.page import render_report, write_report
from isometry.report.pruning import forms_table, slower_sentences
from isometry.report.summary import comparison_row, comparison_times, interval, paired_gains
from isometry.report.tables import comparison_markdown, comparison_table, models_markdown, models_table
from isometry.report.times import times_sentence

__all__ = [
    "Example",
    "ImageGroup",
    "PruningData",
    "RelationMaps",
    "ReportData",
    "SaliencyMaps",
    "comparison_markdown",
    "comparison_picture",
    "comparison_row",
    "comparison_table",
    "comparison_times",
    "forms_table",
    "growth_sentence",
    "headline",
    "interval",
    "maps_picture",
    "models_markdown",
    "models_table",
    "paired_gains",
    "render_report",
    "slower_sentences",
    "times_sentence",
    "write_report",
]
