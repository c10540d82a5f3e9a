"""C13: the same network with and without its last action as an input.

`error_rad` is that of the next action on ten demonstrations that no policy was trained
on, so a shortcut shows as a lower error with fewer successes; `copying_rad` is the
error of repeating the last action.
"""

from ..rollouts import Row, mean
from . import trial as t
from .claim import Claim, Training, outcome
from .trial import Trial

TARGETS = {
    "absolute": {},
    "delta": {"action_target": "delta", "state_noise": 0.02, "lr": 2e-3},
}


def trials(settings: Training) -> list[Trial]:
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


def errors(group: list[Row]) -> Row:
    """Of the policy and of who repeats the last action, mean over seeds."""
    rows = [row["error_rad"] for row in group]
    return {"error_rad": mean(rows, "policy"), "copying_rad": mean(rows, "copying")}


def measure(settings: Training) -> Row:
    """All trials."""
    rows = t.run_trials(trials(settings), settings)
    labels = ["target", "k", "last_action"]
    return {"steps": settings.steps} | outcome(settings, rows, labels, errors)


C13 = Claim(
    "C13",
    "A single-step policy learns to copy the last action; predicting further ahead "
    "breaks the shortcut.",
    "An article on driving: the copycat problem.",
    measure,
    t.SIZES,
    ours="Human-like, delta targets and noise on the inputs, k = 1: without the "
    "last action as an input {{target=delta k=1 last_action=false}} (error of the next "
    "action on held-out demonstrations {{target=delta k=1 last_action=false -> "
    "error_rad 4}} rad), with "
    "it {{target=delta k=1 last_action=true}} ({{target=delta k=1 last_action=true -> "
    "error_rad 4}} rad). k = 25: {{target=delta k=25 last_action=false}} and "
    "{{target=delta k=25 last_action=true}}.",
    verdict="did not hold",
    line="Seeing the last action makes the error on the expert's states several times "
    "smaller, and costs no success.",
    why="So it is the small error that misleads.",
)
