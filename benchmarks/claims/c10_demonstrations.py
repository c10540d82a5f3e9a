"""C10: 10 to 200 demonstrations, the same number of updates.

uv run python -m benchmarks.claims.c10_demonstrations --jobs 2

Of each seed 200 demonstrations are recorded; fewer are the first so many of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from benchmarks.claims import variants
from benchmarks.claims.variants import job, run
from benchmarks.rollouts import Job

NUMBERS = (10, 25, 50, 100, 200)


@dataclass
class Settings(variants.Settings):
    """What is run, and where it is kept."""

    numbers: tuple[int, ...] = NUMBERS
    """How many demonstrations."""


def jobs(settings: Settings) -> Iterator[Job]:
    """Every number of demonstrations with every seed."""
    for number in settings.numbers:
        for seed in settings.seeds:
            yield job(
                f"c10_{number}",
                seed,
                settings,
                {"demonstrations": number},
                demonstrations=max(settings.numbers),
                limit=number,
            )


def main(settings: Settings) -> None:
    """Record, train, roll out, and write data/results/claims/C10.json."""
    most = max(settings.numbers)
    for seed in settings.seeds:  # once, before two processes want the same
        folder = Path(settings.runs) / f"state_human_{most}_{seed}"
        record(
            make_task("so100_pick_place"), folder, most, demonstrator="human", seed=seed
        )
    about = {
        "claim": "50 demonstrations are enough.",
        "published": "The paper: 50 a task; articles: 50 to 100 for simple tasks, 200 "
        "to 400 for insertion.",
    }
    run("C10", jobs(settings), settings, about)


if __name__ == "__main__":
    main(tyro.cli(Settings))
