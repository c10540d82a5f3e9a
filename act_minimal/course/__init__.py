"""What the notebooks stand on: predictions, checks, hints, figures, widgets, runs.

A lesson begins with

    from act_minimal import course
    from act_minimal.course import check, hint, predict, reveal, show
"""

from ..extras import require

require("course")

from .checks import Verdict, check, hint  # noqa: E402
from .films import show_film  # noqa: E402
from .place import ROOT, begin, home  # noqa: E402
from .plots import COLOURS, LINES, MARKERS, figure, show  # noqa: E402
from .predictions import predict, reveal  # noqa: E402
from .results import load_result, rate_text  # noqa: E402
from .runs import demonstrations, rollouts, trained  # noqa: E402
from .widgets import Explorer  # noqa: E402

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
