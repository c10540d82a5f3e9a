"""Measure virtual arms, and write their result file.

    uv run python -m benchmarks.arms so100 loop
    uv run python -m benchmarks.arms so100 success
    uv run python -m benchmarks.arms so100 late
    uv run python -m benchmarks.arms so100 faults
    uv run python -m benchmarks.arms so100 guide
    uv run python -m benchmarks.arms so100_pair guide
    uv run python -m benchmarks.arms openarm loop     # and so on
    uv run python -m benchmarks.arms openarm faults --minutes 7

Rows of faults that were made are found again, so the last line, repeated, does it piece
by piece. `benchmarks.arms.guard_bodies` has a command of its own.
"""

import time
from pathlib import Path
from typing import Literal

import tyro

from hardware.robots import PAIR, TASKS, VIRTUAL, RobotConfig

from ..results import write
from . import bus, guides, openarm_faults, so100_faults
from .campaign import campaign

FILES = {
    ("so100", "guide"): "so100_teleop",
    (PAIR, "guide"): "so100_pair_teleop",
    ("openarm", "success"): "openarm_bus_success",
    ("openarm", "guide"): "openarm_bus_guide",
}
POLICIES = {"so100": bus.VISION, "openarm": bus.STATE}
BENCHES = {"so100": so100_faults, "openarm": openarm_faults}


def main(
    arm: tyro.conf.Positional[Literal["so100", "openarm", "so100_pair"]],
    what: tyro.conf.Positional[Literal["loop", "success", "late", "faults", "guide"]],
    policy: Path | None = None,
    task: str | None = None,
    seconds: float = 300.0,
    exchange_seconds: float = 60.0,
    n: int = 60,
    seed: int = 5,
    episodes: int | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    out: str | None = None,
) -> None:
    """Measure one thing on one kind of arm.

    Args:
        arm: which; of a pair, its guide alone.
        what: how steady the loop is; how often a policy succeeds, in simulation and
            through the bus, and where a prediction takes 250 ms meanwhile (late); what
            happens when something breaks; or the arm's guide, from teleoperation to
            deployment.
        policy: of loop and success; by default the committed one.
        task: of success; by default the arm's usual one.
        seconds: that the loop with a policy runs.
        exchange_seconds: OpenArm: that motors are commanded and read at 200 Hz.
        n: trials of success and guide.
        seed: of their scenes.
        episodes: OpenArm's guide: other than it says, to try it.
        steps: OpenArm's guide: other than it says, to try it.
        minutes: of faults: no row is begun later, and the next call goes on.
        out: another name of the result's file.
    """
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    if arm == PAIR and what != "guide":
        raise SystemExit(f"what is '{what}', expected 'guide' for {PAIR}")
    if what == "guide" and arm in guides.SERVO_GUIDES:
        content = guides.servo_guide(arm, n, seed)
    elif what == "guide":
        content = guides.openarm_guide(n, seed, episodes, steps)
    elif what == "faults":
        bench = BENCHES[arm]
        content = campaign(
            f"{arm}_faults", bench.PHASES, bench.FAULTS, bench.plugged, minutes
        )
        if content is None:
            return
        start = time.perf_counter() - content["seconds"]
    else:
        path = policy or POLICIES[arm]
        if what in ("success", "late"):
            virtual, late = RobotConfig(VIRTUAL, arm), what == "late"
            content = bus.success(
                virtual,
                path,
                task or TASKS[arm],
                n,
                seed,
                bus.FADE if late else None,
                bus.INFERENCE if late else 0.0,
            )
        elif arm == "so100":
            content = bus.so100_loop(path, seconds)
        else:
            content = bus.openarm_loop(path, seconds, exchange_seconds)
    name = FILES.get((arm, what), f"{arm}_{what}")
    write(out or name, time.perf_counter() - start, content)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
