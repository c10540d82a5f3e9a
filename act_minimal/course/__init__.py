"""What the notebooks stand on: predictions, checks, hints, figures, widgets, runs.

A lesson begins with

    from act_minimal import course
    from act_minimal.course import check, hint, predict, reveal, show
"""

from .checks import Verdict, check, hint
from .films import show_film
from .place import ROOT, begin, home
from .plots import COLOURS, LINES, MARKERS, figure, show
from .predictions import predict, reveal
from .results import load_result, rate_text
from .runs import demonstrations, rollouts, trained
from .widgets import Explorer

__all__ = [
    "COLOURS",
    "LINES",
    "MARKERS",
    "ROOT",
    "Explorer",
    "Verdict",
    "begin",
    "check",
    "demonstrations",
    "figure",
    "hint",
    "home",
    "load_result",
    "predict",
    "rate_text",
    "reveal",
    "rollouts",
    "show",
    "show_film",
    "trained",
]
