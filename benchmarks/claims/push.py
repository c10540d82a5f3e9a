"""C14: the cube is pushed while the arm reaches for it.

The policies of `benchmarks.rollouts chunk_size` (k = 50, human demonstrations), found
again or trained; the same scenes without a push stand beside.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

from act_minimal.checkpoint import load_policy
from act_minimal.evaluation import Rate, evaluation_scenes
from act_minimal.execution import ExecutionConfig
from act_minimal.sim import make_task
from act_minimal.support.files import read_json, write_json
from course.figures.lesson_02 import (
    PUSH_BEGINS,
    PUSH_FAR,
    PUSH_SECONDS,
    PushedRobot,
    roll_out,
)

from ..rollouts import PICK_PLACE, Job, Row, grouped, rows_of, run_job, total
from .chunk_size import jobs_with_50
from .claim import Claim, Training

LENGTHS = (1, 5, 10, 25, 50)


def jobs(settings: Training) -> Iterator[Job]:
    """The chunk-size table's policies with k = 50, executed as asked here.

    Other than 2000 updates train policies of their own.
    """
    ways = {str(h): ExecutionConfig("receding", execute=h) for h in LENGTHS}
    for job in jobs_with_50(settings.seeds):
        job = replace(job, executions=ways, rows="rows_c14", n=settings.n)
        if settings.steps != 2000:
            short = job.settings | {"steps": settings.steps}
            job = replace(job, name=f"c14_{job.seed}", settings=short)
        yield job


def run(job: Job, runs: Path) -> list[Row]:
    """Rollouts with the cube left alone, and the same scenes with a push."""
    rows = []
    for row in run_job(job, runs):
        rows.append(row | {"execute": int(row["execution"]), "pushed": False})
    policy = load_policy(runs / job.name)
    for h in LENGTHS:
        path = runs / job.name / "rows_c14" / f"pushed_{h}_{job.n}.json"
        if not path.exists():
            start = time.perf_counter()
            scenes = evaluation_scenes(job.seed, job.n)
            robot = PushedRobot(make_task(PICK_PLACE), scenes, threads=1)
            successes = roll_out(policy, robot, h)
            seconds = round(time.perf_counter() - start, 1)
            write_json(path, {"successes": successes, "seconds": seconds})
        found = read_json(path)
        won = sum(found["successes"])
        failed = [i for i, ok in enumerate(found["successes"]) if not ok]
        rows.append(
            job.labels
            | {"seed": job.seed, "execute": h, "pushed": True}
            | Rate(won, job.n).to_json()
            | {"seconds": found["seconds"], "failed_scenes": failed}
        )
        print(job.name, f"h = {h}, pushed: {won} of {job.n}", flush=True)
    return rows


def measure(settings: Training) -> Row:
    """Every length, with a push and without."""
    todo = list(jobs(settings))
    rows = rows_of(todo, settings.runs, settings.jobs, run)
    in_order = sorted(rows, key=itemgetter("pushed", "execute"))
    groups = grouped(in_order, ("execute", "pushed"))
    return {
        "task": PICK_PLACE,
        "seeds": settings.seeds,
        "k": 50,
        "push": {
            "metres": PUSH_FAR,
            "begins_seconds": PUSH_BEGINS,
            "lasts_seconds": PUSH_SECONDS,
        },
        "settings": todo[0].settings,
        "summary": [label | total(group) for label, group in groups],
        "runs": rows,
        "seconds": sum(row["seconds"] for row in rows),
    }


C14 = Claim(
    "C14",
    "A chunk cannot react: in a stochastic world, executing more of it hurts.",
    "The papers on real-time chunking and on bidirectional decoding.",
    measure,
    Training(steps=2000),
    ours="k = 50, the cube pushed by 3 to 5 cm mid-reach: executing 1 action a chunk "
    "{{execute=1 pushed=true}}, 5: {{execute=5 pushed=true}}, 10: {{execute=10 "
    "pushed=true}}, 25: {{execute=25 pushed=true}}, 50: {{execute=50 pushed=true}}; "
    "left alone, 1: {{execute=1 pushed=false}}, 5: {{execute=5 pushed=false}}, 10: "
    "{{execute=10 pushed=false}} and 25: {{execute=25 pushed=false}}.",
    verdict="under a condition",
    line="If the cube is pushed, executing more than 10 actions hurts; executing "
    "fewer hurts too, pushed or not.",
)
