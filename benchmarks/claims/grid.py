"""Chunk size k against executed length h: two effects, measured apart.

The policies of `benchmarks.rollouts chunk_size` after human-like demonstrations and
without a CVAE, so that only k differs; found again where they were trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from act_minimal.execution import ExecutionConfig
from act_minimal.support.errors import UserError
from course.figures.lesson_07 import difference

from ..rollouts import PICK_PLACE, Job, Row, chunk_size_jobs, pooled, rows_of
from .claim import Claim, Training

SIZES = (1, 5, 10, 25, 50, 100)  # of k and of h
NOISES = (0.02,)  # deviations of the inputs; 0.0 beside it takes as long again
STEPS = 2000


@dataclass
class Grid(Training):
    """Sizes of the grid."""

    sizes: tuple[int, ...] = SIZES
    """Chunk sizes, executed lengths too; 1 among them."""
    noises: tuple[float, ...] = NOISES
    """Noise on the inputs in training; one policy for each."""

    def __post_init__(self):
        if 1 not in self.sizes or not set(self.sizes) <= set(SIZES):
            raise UserError(f"--sizes: 1 and others of {SIZES}, found {self.sizes}")


def jobs(settings: Grid) -> Iterator[Job]:
    """A policy for each k, noise and seed, executed by every h up to k."""
    for job in chunk_size_jobs(settings.seeds):
        k = job.labels["k"]
        if job.demonstrator != "human" or job.labels["cvae"] or k not in settings.sizes:
            continue
        for noise in settings.noises:
            how = job.settings | {"state_noise": noise, "steps": settings.steps}
            same = how == job.settings  # as the table of chunk sizes has trained it
            yield replace(
                job,
                name=job.name
                if same
                else f"grid_{noise:g}_{settings.steps}_{job.name}",
                settings=how,
                executions={
                    str(h): ExecutionConfig("receding", execute=h)
                    for h in settings.sizes
                    if h <= k
                },
                labels={"noise": noise, "k": k},
                rows="rows_grid",
                n=settings.n,
            )


def effects(summary: list[Row]) -> list[Row]:
    """What a larger k changes at h = 1, and what a larger h changes at the same k."""
    cells = {(row["noise"], row["k"], row["h"]): row for row in summary}
    found = []
    for (noise, k, h), row in cells.items():
        if k == 1:
            continue
        name, before = ("learning", 1) if h == 1 else ("executing", k)
        both = row, cells[noise, before, 1]
        d, low, high = difference(
            *((round(r["success"] * r["n"]), r["n"]) for r in both)
        )
        found.append(
            {"effect": name, "noise": noise, "k": k, "h": h}
            | {"difference": d, "interval": [low, high], "n": row["n"]}
        )
    return found


def measure(settings: Grid) -> Row:
    """Every cell of the grid, and the two effects."""
    rows = rows_of(list(jobs(settings)), settings.runs, settings.jobs)
    for row in rows:
        row["h"] = int(row["execution"])
    summary = pooled(rows, ["noise", "k", "h"])
    return {
        "task": PICK_PLACE,
        "demonstrator": "human",
        "seeds": settings.seeds,
        "note": "Intervals of differences are Newcombe's: they count rollouts, not "
        "training seeds.",
        "effects": effects(summary),
        "summary": summary,
        "runs": rows,
        "seconds": sum(row.get("job_seconds", 0.0) for row in rows),
    }


GRID = Claim(
    "grid",
    "To learn with chunks of k actions is one effect, to execute h of them another.",
    "Zhao et al.: k = 1 gives 1 %, k = 100 gives 44 %. LeRobot, k = 100: h = 1 without "
    "ensembling gives 0 %.",
    measure,
    Grid(steps=STEPS),
)
