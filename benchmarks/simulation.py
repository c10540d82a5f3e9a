"""What a control step, an image, ten scenes and a demonstration cost.

uv run python -m benchmarks.simulation
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.evaluation import Rate
from act_minimal.sim import World, make_task
from act_minimal.sim.recording import demonstrate
from act_minimal.sim.so100.expert import DEMONSTRATORS, Expert

from .results import write
from .rollouts import PICK_PLACE, record_once

REPEATS = 7
EXPERT_SEED = 7  # of no other result


def spread(seconds: list[float], unit: float = 1e3) -> dict[str, float]:
    """Least, median and most, in ms unless told."""
    return {
        "min": unit * min(seconds),
        "median": unit * statistics.median(seconds),
        "max": unit * max(seconds),
    }


def timed(call: Callable[[], Any], times: int) -> list[float]:
    """Seconds a call, for each of `REPEATS` series of `times` calls."""
    call()
    series = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(times):
            call()
        series.append((time.perf_counter() - start) / times)
    return series


def playback(n: int) -> tuple[World, Callable[[], None]]:
    """Scenes in which the expert's plans are carried out over and over, a tick a call.

    Contacts cost most of the time, so a resting arm would flatter the simulator.
    """
    task = make_task(PICK_PLACE)
    world, expert = World(task, n), Expert(task)
    world.reset(range(n))
    plans = [expert.plan(world.qpos[i], i) for i in range(n)]
    length = min(map(len, plans))
    actions = np.stack([plan[:length] for plan in plans], axis=1)  # (T, n, A)

    def tick() -> None:
        t = int(world.ticks[0])
        if t == length:
            world.reset(range(n))
            t = 0
        world.step(actions[t])

    return world, tick


def main() -> None:
    """Measure everything and write data/results/simulation.json."""
    start = time.perf_counter()
    world, tick = playback(1)
    one = timed(tick, 600)
    images = timed(lambda: world.observe(("top", "wrist")), 100)
    each = {c: timed(lambda c=c: world.observe((c,)), 100) for c in ("top", "wrist")}
    large = timed(lambda: world.observe(("top",), (480, 640)), 20)
    _, tick_ten = playback(10)
    ten = timed(tick_ten, 120)
    world.close()
    throughput = [10 * a / b for a, b in zip(one, ten, strict=True)]

    experts = {}
    for name in DEMONSTRATORS:
        attempts = range(50_000, 50_100)
        ok = [
            bool(episode.attributes["success"])
            for _, episode in demonstrate(
                make_task(PICK_PLACE), attempts, name, EXPERT_SEED
            )
        ]
        experts[name] = Rate(sum(ok), len(ok)).to_json()

    rates: dict[str, float] = {}
    for label, cameras, n in (("no_images", (), 60), ("both", ("top", "wrist"), 16)):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            record_once(Path(folder) / "data", "human", n, 8, PICK_PLACE, cameras)
            rates[label] = n / (time.perf_counter() - begin)

    write(
        "simulation",
        time.perf_counter() - start,
        {
            "task": PICK_PLACE,
            "repetitions": REPEATS,
            "control_step_ms": spread(one),
            "two_images_96x128_ms": spread(images),
            "one_image_96x128_ms": {c: spread(s) for c, s in each.items()},
            "one_image_480x640_ms": spread(large),
            "ten_scenes_throughput_over_one": spread(throughput, 1.0),
            "experts": experts,
            "seeds": [EXPERT_SEED],
            "demonstrations_per_second": rates,
        },
    )


if __name__ == "__main__":
    main()
