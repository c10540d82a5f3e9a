"""What the notebooks stand on: predictions, checks, hints, figures, widgets, runs.

A lesson begins with

    import course
    from course import check, hint, predict, reveal, show
"""

from act_minimal.support.extras import require

require("course")

from . import exercises  # noqa: E402, F401  (they register themselves)
from .capstone import check  # noqa: E402
from .toolkit.checks import Verdict, hint  # noqa: E402
from .toolkit.films import show_film  # noqa: E402
from .toolkit.paths import ROOT, begin, home  # noqa: E402
from .toolkit.plots import COLOURS, LINES, MARKERS, figure, show  # noqa: E402
from .toolkit.predictions import predict, reveal  # noqa: E402
from .toolkit.results import load_result, rate_text  # noqa: E402
from .toolkit.runs import demonstrations, rollouts, trained  # noqa: E402
from .toolkit.widgets import Explorer  # noqa: E402

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
