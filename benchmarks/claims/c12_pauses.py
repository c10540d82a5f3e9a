"""C12: small chunks hesitate at pauses; a chunk longer than the pause carries it.

    uv run python -m benchmarks.claims.c12_pauses --jobs 2

The scripted expert's demonstrations without pauses, with a pause of 0.5 s after each of
its moves, and with one of 0 to 1 s, drawn anew each time: while the arm rests, nothing
that a policy sees says for how long. One network (a perceptron, targets relative to the
joints, noise on its inputs) with three chunk sizes; chunks are executed by halves.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from act_minimal.dataset import Demonstrations
from act_minimal.evaluation import still
from benchmarks.claims import trial as t
from benchmarks.claims.trial import Trial
from benchmarks.results import write
from benchmarks.rollouts import pooled

EXPERTS = {"scripted": "none", "paused": "fixed", "hesitant": "random"}
CHUNKS = (1, 10, 50)


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
    """Every kind of pause and chunk with every seed."""
    training = {"action_target": "delta", "state_noise": 0.02, "lr": 2e-3}
    return [
        Trial(
            f"c12_{expert}_k{k}_{seed}",
            seed,
            {"pauses": pauses, "k": k},
            expert=expert,
            steps=settings.steps,
            n=settings.n,
            settings=training | {"chunk_size": k},
        )
        for expert, pauses in EXPERTS.items()
        for k in CHUNKS
        for seed in settings.seeds
    ]


def frozen_demonstrations(trial: Trial, runs: Path) -> float:
    """Share of ticks in which the expert stands still, by the rollouts' measure."""
    demos = Demonstrations.load(t.demonstrations(trial, runs))
    shares = [
        still(demos.qpos[start : start + length]).mean()
        for start, length in zip(demos.starts, demos.lengths, strict=True)
    ]
    return float(np.mean(shares))


def main(settings: Settings) -> None:
    """Run all, and write data/results/claims/C12.json."""
    start = time.perf_counter()
    todo, runs = trials(settings), settings.runs
    rows = t.side_by_side(t.run_trial, [(x, runs) for x in todo], settings.jobs)
    shown = []
    for pauses in EXPERTS.values():
        some = [x for x in todo if x.labels == {"pauses": pauses, "k": CHUNKS[0]}]
        frozen = float(np.mean([frozen_demonstrations(x, runs) for x in some]))
        shown.append({"pauses": pauses, "frozen": frozen, "n": 50 * len(some)})
    spent = sum(row["job_seconds"] for row in rows)
    write(
        "claims/C12",
        max(spent, time.perf_counter() - start),
        {
            "claim": "Too small a chunk hesitates and gets stuck at pauses; a chunk "
            "carries a pause through.",
            "published": "The ACT paper argues so for pauses in human demonstrations, "
            "without a number of its own.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "steps": settings.steps,
            "summary": pooled(rows, ["pauses", "k"]),
            "demonstrations": shown,
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
