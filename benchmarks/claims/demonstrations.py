"""What demonstrations are like: cut short or failed (C33), pace (C34), style (C35)."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from ..rollouts import Job, Row, rows_of
from .claim import Claim, Training, jobs_of, outcome

Cases = Iterable[tuple[Row, str, Row]]
"""Labels, the name of an alteration ("" for none), and settings of training."""


def train_on_altered(name: str, cases: Cases, settings: Training) -> Row:
    """The demo's policy, on 50 human-like demonstrations that were altered.

    The claims share what they train on demonstrations as they are.
    """
    jobs: list[Job] = []
    for labels, how, more in cases:
        run = "_".join(["altered", how or "plain", *map(str, more.values())])
        found = jobs_of(run, settings, labels, "human", 50, **more)
        jobs += [replace(job, altered=how, rows=f"rows_{name}") for job in found]
    rows = rows_of(jobs, settings.runs, settings.jobs)
    about: dict[str, Any] = {"steps": settings.steps}
    return about | outcome(settings, rows, list(jobs[0].labels))


# --- C33 ------------------------------------------------------------------------------

BAD: Cases = [
    ({"kind": "none", "percent": 0}, "", {}),
    *(
        ({"kind": kind, "percent": percent}, f"{kind}_{percent}", {})
        for kind in ("truncated", "failed")
        for percent in (10, 20, 30)
    ),
    *(
        ({"kind": "removed", "percent": p}, "", {"limit": round(50 - p / 2)})
        for p in (10, 20, 30)
    ),
]
C33 = Claim(
    "C33",
    "Remove failed and incomplete demonstrations: they spoil a policy.",
    "A guide to recording; no number is given.",
    partial(train_on_altered, "c33", BAD),
    Training(),
    ours="50 human-like demonstrations, equal updates: all good {{kind=none "
    "percent=0}}; 10 % of them cut short in the middle {{kind=truncated percent=10}}, "
    "20 % {{kind=truncated percent=20}}, 30 % {{kind=truncated percent=30}}; in 10 % "
    "the hand closed beside the cube and went on {{kind=failed percent=10}}, 20 % "
    "{{kind=failed percent=20}}, 30 % {{kind=failed percent=30}}; so many removed: 10 "
    "% {{kind=removed percent=10}}, 20 % {{kind=removed percent=20}}, 30 % "
    "{{kind=removed percent=30}}.",
)


# --- C34 ------------------------------------------------------------------------------

PACES: Cases = [
    ({"pace": "recorded"}, "", {}),
    ({"pace": "even"}, "even_speed", {}),
    ({"pace": "uneven"}, "uneven_speed", {}),
]
C34 = Claim(
    "C34",
    "Demonstrate at an even speed.",
    "A guide to recording; no number is given.",
    partial(train_on_altered, "c34", PACES),
    Training(),
    ours="50 human-like demonstrations, the longest of which take twice as long as the "
    "shortest: as recorded {{pace=recorded}}; performed again, all in the median time "
    "{{pace=even}}; in the median time times a factor of 1 / 1.6 to 1.6 "
    "{{pace=uneven}}.",
)


# --- C35 ------------------------------------------------------------------------------

STYLES: Cases = [
    ({"style": "one"}, "", {}),
    ({"style": "other"}, "second_style", {}),
    ({"style": "half"}, "two_styles", {}),
]
C35 = Claim(
    "C35",
    "One style: demonstrations of several operators who do it differently are worse.",
    "A guide to recording; no number is given.",
    partial(train_on_altered, "c35", STYLES),
    Training(),
    ours="50 human-like demonstrations, which come to the cube from above or from the "
    "side {{style=one}}; 50 that also look aside for three seconds first "
    "{{style=other}}; every second of which does so {{style=half}}.",
)
