"""C14: a chunk cannot react. The cube is pushed while the arm reaches for it.

    uv run python -m benchmarks.claims.c14_push --jobs 2 --runs runs/benchmarks

The policies of `benchmarks.rollouts chunk_size` (k = 50, human demonstrations), found
again or trained, with 1 to 50 actions of each chunk executed. In each scene the cube
slides by 3 to 5 cm within 0.2 s, beginning between 0.7 and 1.4 s; the same scenes
without a push stand beside.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from act_minimal.course.chunks import (
    PUSH_BEGINS,
    PUSH_FAR,
    PUSH_SECONDS,
    PushedRobot,
    roll_out,
)
from act_minimal.evaluation import evaluation_scenes, wilson
from act_minimal.execution import ExecutionConfig
from act_minimal.files import write_json
from act_minimal.policy import load_policy
from act_minimal.sim import make_task
from benchmarks.results import write
from benchmarks.rollouts import Job, chunk_size_jobs, rows_of, run_job, total

LENGTHS = (1, 5, 10, 25, 50)


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/benchmarks")
    """Folder of demonstrations and training runs; that of `rollouts chunk_size` saves
    the training."""
    jobs: int = 1
    """Policies side by side, one thread each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Demonstrations, weights and scenes of each seed belong together."""
    n: int = 100
    """Rollouts a seed."""
    steps: int = 2000
    """Updates; other than 2000 trains policies of its own."""


def jobs(settings: Settings) -> list[Job]:
    """The chunk-size table's policies with k = 50, executed as asked here."""
    found = []
    for job in chunk_size_jobs(settings.seeds):
        if job.labels == {"demonstrator": "human", "k": 50, "cvae": True}:
            ways = {
                str(h): ExecutionConfig("receding", execute=h)
                for h in LENGTHS
                if h <= 50
            }
            job = replace(job, executions=ways, rows="rows_c14", n=settings.n)
            if settings.steps != 2000:
                short = job.settings | {"steps": settings.steps}
                job = replace(job, name=f"c14_{job.seed}", settings=short)
            found.append(job)
    return found


def run(job: Job, runs: Path) -> list[dict[str, Any]]:
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
            robot = PushedRobot(make_task("so100_pick_place"), scenes, threads=1)
            successes = roll_out(policy, robot, h)
            seconds = round(time.perf_counter() - start, 1)
            write_json(path, {"successes": successes, "seconds": seconds})
        found = json.loads(path.read_text(encoding="utf-8"))
        won = sum(found["successes"])
        failed = [i for i, ok in enumerate(found["successes"]) if not ok]
        rows.append(
            job.labels
            | {"seed": job.seed, "execute": h, "pushed": True}
            | {"successes": won, "n": job.n, "rate": won / job.n}
            | {"interval": wilson(won, job.n), "seconds": found["seconds"]}
            | {"failed_scenes": failed}
        )
        print(job.name, f"h = {h}, pushed: {won} of {job.n}", flush=True)
    return rows


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds, a row for each executed length with and without a push."""
    summary = []
    for pushed in (False, True):
        for h in LENGTHS:
            ours = [r for r in rows if (r["execute"], r["pushed"]) == (h, pushed)]
            summary.append({"execute": h, "pushed": pushed} | total(ours))
    return summary


def main(settings: Settings) -> None:
    """Roll out, and write data/results/claims/C14.json."""
    todo = jobs(settings)
    rows = rows_of(todo, settings.runs, settings.jobs, run)
    write(
        "claims/C14",
        sum(row["seconds"] for row in rows),
        {
            "claim": "A chunk cannot react: in a stochastic world, executing more of "
            "it hurts.",
            "published": "The papers on real-time chunking and on bidirectional "
            "decoding.",
            "task": "so100_pick_place",
            "seeds": settings.seeds,
            "k": 50,
            "push": {
                "metres": PUSH_FAR,
                "begins_seconds": PUSH_BEGINS,
                "lasts_seconds": PUSH_SECONDS,
            },
            "settings": json.loads(json.dumps(asdict(todo[0])["settings"])),
            "summary": summarise(rows),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
