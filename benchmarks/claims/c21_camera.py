"""C21: a camera that has moved. The committed vision policy, its upper camera shifted.

uv run python -m benchmarks.claims.c21_camera --jobs 2
uv run python -m benchmarks.claims.c21_camera --jobs 2 --retrain
"""

import tyro

from act_minimal.course.field import pixels_a_centimetre
from act_minimal.sim.variants import Change
from benchmarks.claims.on_changes import (
    RETRAIN,
    VISION_CHECKPOINT,
    Settings,
    augmented_policy,
    pooled,
    run_trials,
    trials,
)
from benchmarks.results import write

SHIFTS = (1, 2, 5)  # cm


def changes() -> list[tuple[dict, Change]]:
    """No shift, then each shift along each axis."""
    found = [({"axis": "none", "shift_cm": 0}, Change())]
    for i, axis in enumerate("xyz"):
        for cm in SHIFTS:
            shift = [0.0, 0.0, 0.0]
            shift[i] = cm / 100
            change = Change(camera=(shift[0], shift[1], shift[2]))
            found.append(({"axis": axis, "shift_cm": cm}, change))
    return found


def main(settings: Settings) -> None:
    """Roll out, and write data/results/claims/C21.json."""
    policies = {"committed": VISION_CHECKPOINT}
    if settings.retrain:
        policies["augmented"] = augmented_policy(settings)
    rows = run_trials(trials(policies, changes(), settings), settings.jobs)
    write(
        "claims/C21",
        sum(row["seconds"] for row in rows),
        {
            "claim": "Fixed exposure, fixed cameras: any shift hurts.",
            "published": "A checklist's advice; no number is given.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "note": "Seeds are of scenes; each policy is one training run. x is to "
            "the right in the picture, y towards the arm's base, z up.",
            "pixels_a_cm": pixels_a_centimetre(),
            "trained_with_shift_px": 4,
            "retrained": RETRAIN if settings.retrain else None,
            "summary": pooled(rows, ["policy", "axis", "shift_cm"]),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
