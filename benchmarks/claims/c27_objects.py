"""C27: a cube that was not demonstrated, and other light, at test time.

    uv run python -m benchmarks.claims.c27_objects --jobs 2
    uv run python -m benchmarks.claims.c27_objects --jobs 2 --retrain

Two controls tell "cannot be done" from "was not learnt": the scripted expert, and the
state policy, which is told the cube's pose, on the cubes of other sizes.
"""

import time
from typing import Any

import tyro

from act_minimal.evaluation import wilson
from act_minimal.sim.variants import Change, ChangedPickPlace
from benchmarks.claims.on_changes import (
    RETRAIN,
    STATE_CHECKPOINT,
    VISION_CHECKPOINT,
    Settings,
    augmented_policy,
    pooled,
    run_trials,
    trials,
)
from benchmarks.results import write

SIZES = {
    "20mm": Change(cube_size=0.020),
    "32mm": Change(cube_size=0.032),
}
CHANGES = {
    "none": Change(),
    "orange": Change(cube_colour=(0.90, 0.45, 0.10)),
    "green": Change(cube_colour=(0.10, 0.55, 0.20)),
    "blue": Change(cube_colour=(0.10, 0.25, 0.75)),
    **SIZES,
    "half_light": Change(light=(0.5, 0.5, 0.5)),
    "bright_light": Change(light=(1.3, 1.3, 1.3)),
    "warm_light": Change(light=(1.0, 0.85, 0.6)),
}


def expert_row(name: str, change: Change, seed: int, n: int) -> dict[str, Any]:
    """The scripted expert on n demonstration scenes of a changed task."""
    from act_minimal.sim.recording import demonstrate

    start = time.perf_counter()
    found = demonstrate(ChangedPickPlace(change), range(n), "scripted", seed)
    failed = [i for i, episode in found if not episode.attributes["success"]]
    rate = 1 - len(failed) / n
    print("expert", name, seed, rate, flush=True)
    return {
        "policy": "expert",
        "change": name,
        "seed": seed,
        "n": n,
        "successes": n - len(failed),
        "rate": rate,
        "interval": wilson(n - len(failed), n),
        "jerk": 0.0,
        "frozen": 0.0,
        "kinds": {},
        "seconds": time.perf_counter() - start,
    }


def main(settings: Settings) -> None:
    """Roll out, and write data/results/claims/C27.json."""
    policies = {"vision": VISION_CHECKPOINT}
    if settings.retrain:
        policies["augmented"] = augmented_policy(settings)
    todo = trials(policies, [({"change": k}, c) for k, c in CHANGES.items()], settings)
    sized = {"none": Change(), **SIZES}
    told = [({"change": k}, c) for k, c in sized.items()]
    todo += trials({"state": STATE_CHECKPOINT}, told, settings)
    rows = run_trials(todo, settings.jobs)
    rows += [
        expert_row(name, change, seed, settings.n)
        for name, change in sized.items()
        for seed in settings.seeds
    ]
    write(
        "claims/C27",
        sum(row["seconds"] for row in rows),
        {
            "claim": "ACT does not generalise to new objects.",
            "published": "A list of failures says so; no number is given.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "note": "Seeds are of scenes; each policy is one training run, on a red "
            "cube of 25 mm in one light. Jerk and frozen of the expert are not "
            "measured (0).",
            "retrained": RETRAIN if settings.retrain else None,
            "summary": pooled(rows, ["policy", "change"]),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
