"""Pictures, tables and the one-file HTML report: pure functions of plain data (dicts, lists, numpy arrays).

Nothing here knows of models, losses or the loop; a caller gathers the figures and hands them over.
"""

from isometry.report.drawing.gains import comparison_picture
from isometry.report.drawing.maps import maps_picture
from isometry.report.growth import growth_sentence
from isometry.report.headline import headline
from isometry.report.page import render_comparison, render_report, write_page, write_report
from isometry.report.pruning import forms_table, slower_sentences
from isometry.report.records.data import (
    Example,
    ImageGroup,
    PruningData,
    RelationMaps,
    ReportData,
    SaliencyMaps,
)
from isometry.report.records.groups import Group, group_runs
from isometry.report.records.intervals import comparison_row, comparison_times, interval, paired_gains
from isometry.report.records.record import write_record
from isometry.report.records.run_folders import RunReport, find_runs, notes_of, read_run
from isometry.report.tables import comparison_markdown, comparison_table, models_markdown, models_table
from isometry.report.times import times_sentence

__all__ = [
    "Example",
    "Group",
    "ImageGroup",
    "PruningData",
    "RelationMaps",
    "ReportData",
    "RunReport",
    "SaliencyMaps",
    "comparison_markdown",
    "comparison_picture",
    "comparison_row",
    "comparison_table",
    "comparison_times",
    "find_runs",
    "forms_table",
    "group_runs",
    "growth_sentence",
    "headline",
    "interval",
    "maps_picture",
    "models_markdown",
    "models_table",
    "notes_of",
    "paired_gains",
    "read_run",
    "render_comparison",
    "render_report",
    "slower_sentences",
    "times_sentence",
    "write_page",
    "write_record",
    "write_report",
]
