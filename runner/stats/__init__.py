"""Scores as pure functions on pandas tables: cells in, tables out; no file, no config, no printing.

``cells`` -> :func:`study_times` -> :func:`medians` -> :func:`scores`, :func:`profile`, :func:`speedup`;
round them :func:`bootstrap` and :func:`leave_one_out`. :func:`board` and :func:`by_workload` put all of it
together.
"""

from runner.stats.board_scores import board, by_workload
from runner.stats.profiles import profile, scores
from runner.stats.resampling import bootstrap
from runner.stats.stability import leave_one_out
from runner.stats.times import hit_rates, medians, reached, speedup, spreads, study_times

__all__ = [
    "board",
    "bootstrap",
    "by_workload",
    "hit_rates",
    "leave_one_out",
    "medians",
    "profile",
    "reached",
    "scores",
    "speedup",
    "spreads",
    "study_times",
]
