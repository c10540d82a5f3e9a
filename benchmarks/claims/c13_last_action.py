"""C13: a single-step policy that sees its last action learns to copy it.

    uv run python -m benchmarks.claims.c13_last_action --jobs 2

The same network with and without the previous action as an input, for one action and
for a chunk of 25, with targets as recorded and relative to the joints. `error_rad` is
the error of the next action on ten demonstrations that no policy was trained on, so a
shortcut shows as a lower error with fewer successes. `copying_rad` is the error of
repeating the last action.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.claims import trial as t
from benchmarks.claims.trial import Trial
from benchmarks.results import write
from benchmarks.rollouts import pooled

TARGETS = {
    "absolute": {},
    "delta": {"action_target": "delta", "state_noise": 0.02, "lr": 2e-3},
}


@dataclass
class Settings:
    """Sizes; the defaults are the committed result's."""

    runs: Path = Path("runs/claims")
    """Folder of demonstrations and training runs."""
    jobs: int = 1
    """Policies trained side by side, each on one thread."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of demonstrations, weights and scenes."""
    steps: int = 3000
    """Updates of every policy."""
    n: int = 100
    """Rollouts a seed."""


def trials(settings: Settings) -> list[Trial]:
    """Both targets, both chunks, with and without the last action, every seed."""
    return [
        Trial(
            f"c13_{target}_k{k}{'_last' * last}_{seed}",
            seed,
            {"target": target, "k": k, "last_action": last},
            steps=settings.steps,
            n=settings.n,
            last_action=last,
            settings=training | {"chunk_size": k},
        )
        for target, training in TARGETS.items()
        for k in (1, 25)
        for last in (False, True)
        for seed in settings.seeds
    ]


def main(settings: Settings) -> None:
    """Run all, and write data/results/claims/C13.json."""
    start = time.perf_counter()
    todo, runs = trials(settings), settings.runs
    rows = t.side_by_side(t.run_trial, [(x, runs) for x in todo], settings.jobs)
    summary = pooled(rows, ["target", "k", "last_action"])
    for row in summary:
        labels = ("target", "k", "last_action")
        group = [r for r in rows if all(r[x] == row[x] for x in labels)]
        for key in ("policy", "copying"):
            mean = float(np.mean([r["error_rad"][key] for r in group]))
            row["error_rad" if key == "policy" else "copying_rad"] = mean
    spent = sum(row["job_seconds"] for row in rows)
    write(
        "claims/C13",
        max(spent, time.perf_counter() - start),
        {
            "claim": "A single-step policy learns to copy its last action; predicting "
            "a chunk breaks the shortcut.",
            "published": "Reported of driving policies that see their own past, as "
            "the copycat problem.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "steps": settings.steps,
            "summary": summary,
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
