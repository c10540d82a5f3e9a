"""What a claim is, what its measurement can be told, and what a result file holds."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from act_minimal.command.demo import STATE

from ..results import write
from ..rollouts import (
    HALF,
    PICK_PLACE,
    Job,
    Row,
    every_seed,
    grouped,
    mean,
    pooled,
    total,
)

Verdict = Literal["held", "under a condition", "did not hold", "not tested"]


class Extension(NamedTuple):
    """What a claim's declaration measures beyond its committed result file."""

    what: str
    """Said, with the command, until the file holds it."""
    ours: str
    """Said from then on; like `Claim.ours`."""


@dataclass
class Sizes:
    """How much is run, and where it is kept."""

    runs: Path = Path("runs/benchmarks")
    """Folder of demonstrations and training runs."""
    jobs: int = 1
    """Policies side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Demonstrations, weights and scenes of each seed belong together."""
    n: int = 100
    """Rollouts a seed."""


@dataclass
class Training(Sizes):
    """The same, where policies are trained."""

    steps: int = 1000
    """Updates of every policy."""


@dataclass(frozen=True)
class Claim:
    """One claim: what was published, how it is measured, what we found.

    Attributes:
        number: "C3"; its result is data/results/claims/C03.json.
        text: the claim, in a sentence.
        published: what others reported.
        measure: takes `settings`, and gives the content of the result file. "seconds"
            in it is how long the work took, also that of earlier calls; "file" is
            another name of the result. None where nothing is measured for this claim.
        settings: defaults of what the command line can change; None for nothing.
        others: files below data/results that bear on it, too.
        ours: what we measured. Numbers stand as `{{file list key=value}}` (see
            `course.toolkit.results`), or as `{{key=value}}` of this claim's summary.
        verdict: a judgement, so a person writes it, after the numbers.
        line: the verdict's reason in one line, for the board of docs/results.md.
        why: what the line has no space for.
        extension: what was added to the measurement after the file was committed.
    """

    number: str
    text: str
    published: str
    measure: Callable[[Any], Row] | None = None
    settings: Any = None
    others: tuple[str, ...] = ()
    ours: str = ""
    verdict: Verdict = "not tested"
    line: str = "Declared, with the command that measures it, and not run yet."
    why: str = ""
    extension: Extension | None = None

    @property
    def file(self) -> str:
        """Name of its result below data/results."""
        digits = self.number.removeprefix("C")
        return f"claims/C{digits:0>2}" if digits.isdigit() else f"claims/{self.number}"

    @property
    def results(self) -> tuple[str, ...]:
        """Files below data/results that bear on it."""
        return ((self.file,) if self.measure else ()) + self.others

    @property
    def command(self) -> str:
        """What measures it."""
        jobs = " --jobs 2" if hasattr(self.settings, "jobs") else ""
        return f"uv run python -m benchmarks.claims {self.number}{jobs}"

    def numbers(self, text: str) -> str:
        """`text`, every number with its file."""
        return re.sub(r"\{\{(?=\w+=)", f"{{{{{self.file} summary ", text)

    def run(self, settings: Any = None) -> None:
        """Measure, and write the result file."""
        assert self.measure is not None
        start = time.perf_counter()
        content = self.measure(settings or self.settings)
        seconds = max(content.pop("seconds", 0.0), time.perf_counter() - start)
        about = {"claim": self.text, "published": self.published}
        write(content.pop("file", self.file), seconds, about | content)


def jobs_of(
    name: str, settings: Training, labels: Row, *data: Any, **training: Any
) -> list[Job]:
    """A policy with every seed, trained as the demo's but for `training`.

    `data` are demonstrator and number of demonstrations, by default "human" and 50.
    """
    how = STATE.act | {"steps": settings.steps, "threads": 1} | training
    half = {"half": HALF}
    return every_seed(settings.seeds, name, labels, how, half, *data, n=settings.n)


def tried(
    settings: Training, trained: list[Row], rows: list[Row], labels: Sequence[str]
) -> Row:
    """The same where policies were trained first, and then tried in several scenes."""
    spent = [row.get("job_seconds", 0.0) for row in trained]
    return {
        "task": PICK_PLACE,
        "seeds": settings.seeds,
        "steps": settings.steps,
        "summary": [label | total(group) for label, group in grouped(rows, labels)],
        "runs": rows,
        "seconds": sum(spent) + sum(row.get("seconds", 0.0) for row in rows),
    }


def means(group: list[Row], keys: Sequence[str]) -> Row:
    """The mean over seeds of some numbers, and each seed's."""
    found = {}
    for key in keys:
        found[key] = mean(group, key)
        found[f"{key}_each_seed"] = [row[key] for row in group]
    return found


def outcome(
    settings: Sizes,
    rows: list[Row],
    labels: Sequence[str],
    more: Callable[[list[Row]], Row] | None = None,
) -> Row:
    """What nearly every claim's result file holds; see `pooled`."""
    return {
        "task": PICK_PLACE,
        "seeds": settings.seeds,
        "summary": pooled(rows, labels, more),
        "runs": rows,
        "seconds": sum(row.get("job_seconds", 0.0) for row in rows),
    }
