"""C39: gains of the arm's servos, and what they do to a clone's loss and success."""

from dataclasses import dataclass
from pathlib import Path

import mujoco

from act_minimal.checkpoint import load_policy
from act_minimal.sim import PickPlace

from ..rollouts import (
    HALF,
    Job,
    Row,
    every_seed,
    held_out,
    mean,
    pooled,
    record_once,
    rows_of,
)
from .claim import STATE, Claim, Training

GAINS = {  # stiffness as a factor, and damping over critical
    "Usual": (1.0, 1.0),
    "Soft": (0.5, 1.0),
    "Softer": (0.25, 1.0),
    "Stiff": (2.0, 1.0),
    "Damped": (1.0, 2.0),
    "Springy": (1.0, 0.5),
    "Lazy": (0.25, 2.0),
}
HELD_OUT = 10  # demonstrations


class Geared(PickPlace):
    """Pick-and-place by an arm whose servos have other gains."""

    stiffness, damping = 1.0, 1.0

    def spec(self) -> mujoco.MjSpec:
        spec = super().spec()
        for servo in spec.actuators[:-1]:  # the gripper holds as usual
            servo.gainprm[0] *= self.stiffness
            servo.biasprm[1] *= self.stiffness
            servo.biasprm[2] *= self.damping  # still as a ratio: compiled later
        return spec


def variant(name: str) -> type[Geared]:
    """The task with these gains; a name of this module, so that rollouts find it."""
    stiffness, damping = GAINS[name]
    body = {"stiffness": stiffness, "damping": damping, "__module__": __name__}
    return type(name, (Geared,), body | {"name": f"so100_{name.lower()}_servos"})


Usual, Soft, Softer = variant("Usual"), variant("Soft"), variant("Softer")
Stiff, Damped, Springy = variant("Stiff"), variant("Damped"), variant("Springy")
Lazy = variant("Lazy")


@dataclass
class Gains(Training):
    """Sizes of C39."""

    chunks: tuple[int, ...] = (1, 25)
    """Chunk sizes."""


def jobs(settings: Gains) -> list[Job]:
    """Every gain with every chunk size."""
    found: list[Job] = []
    for name, (stiffness, damping) in GAINS.items():
        for k in settings.chunks:
            labels: Row = {"stiffness": stiffness, "damping": damping, "k": k}
            labels["task"] = f"{__name__}:{name}"
            model = {"cvae_actions_per_token": 5 if k > 1 else 1}
            how = STATE.act | {"steps": settings.steps, "threads": 1}
            how |= {"chunk_size": k, "model": model}
            found += every_seed(
                settings.seeds,
                f"c39_{name.lower()}_{k}",
                labels,
                how,
                {"half": HALF},
                n=settings.n,
            )
    return found


def held_out_loss(job: Job, runs: Path) -> float:
    """Mean error of a chunk on demonstrations that it was not trained on, rad."""
    data = runs / f"{job.data}_held_out"
    record_once(data, "human", HELD_OUT, job.seed + 5000, job.task)
    error, inside = held_out(load_policy(runs / job.name), data)
    return float(error[inside][:, :5].mean())


def measure(settings: Gains) -> Row:
    """Demonstrated, trained and rolled out by the same arm each time."""
    todo = jobs(settings)
    rows = rows_of(todo, settings.runs, settings.jobs)
    for job, row in zip(todo, rows, strict=True):
        row["held_out_rad"] = held_out_loss(job, settings.runs)
    return {
        "seeds": settings.seeds,
        "steps": settings.steps,
        "summary": pooled(
            rows,
            ["stiffness", "damping", "k"],
            lambda group: {"held_out_rad": mean(group, "held_out_rad")},
        ),
        "runs": rows,
        "seconds": sum(row.get("job_seconds", 0.0) for row in rows),
    }


def at(stiffness: float, damping: float, k: int) -> str:
    """Success, and the error of a prediction, as prose names them."""
    where = f"stiffness={stiffness} damping={damping} k={k}"
    return f"{{{{{where}}}}} ({{{{{where} -> held_out_rad 4}}}} rad)"


C39 = Claim(
    "C39",
    "Soft, overdamped servos are better for cloning, though the validation loss is "
    "higher with them.",
    "Papers on tuning gains to learn (2604.02523): the loss ranks gains wrongly.",
    measure,
    Gains(),
    ours="Success, and the error on held-out demonstrations. k = 25: usual gains "
    f"{at(1.0, 1.0, 25)}, half the stiffness {at(0.5, 1.0, 25)}, a quarter "
    f"{at(0.25, 1.0, 25)}, double {at(2.0, 1.0, 25)}, twice the damping "
    f"{at(1.0, 2.0, 25)}, half of it {at(1.0, 0.5, 25)}, a quarter of the stiffness "
    f"with twice the damping {at(0.25, 2.0, 25)}. Single steps: "
    f"{at(1.0, 1.0, 1)}, {at(0.5, 1.0, 1)}, {at(0.25, 1.0, 1)}, {at(2.0, 1.0, 1)}, "
    f"{at(1.0, 2.0, 1)}, {at(1.0, 0.5, 1)}, {at(0.25, 2.0, 1)}. Demonstrators plan the "
    "same targets for all of them.",
)
