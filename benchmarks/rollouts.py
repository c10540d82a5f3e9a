"""Train policies and roll them out, over seeds, and write the success rates.

    uv run python -m benchmarks.rollouts state
    uv run python -m benchmarks.rollouts chunk_size
    uv run python -m benchmarks.rollouts single_step
    uv run python -m benchmarks.rollouts vision
    uv run python -m benchmarks.rollouts openarm

Each run and each evaluation is kept in --runs and found again: a call that was stopped
goes on. Rows of the committed result file are found again too. Demonstrations of seed
s, weights of seed s and scenes of seed s belong together. The intervals count rollouts
only; how much seeds differ stands beside them.
"""

import itertools
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from act_minimal.command.demo import (
    STATE,
    VISION,
    recipe_for,
    steps_that_fit,
    versions,
)
from act_minimal.dataset import Demonstrations
from act_minimal.evaluation import Evaluation, Rate, evaluate
from act_minimal.execution import ExecutionConfig
from act_minimal.policy import Policy
from act_minimal.settings import TrainConfig
from act_minimal.sim import Task, make_task
from act_minimal.sim.recording import record
from act_minimal.support.errors import UserError
from act_minimal.support.files import read_json, write_json
from act_minimal.training import train
from course.toolkit.runs import alone

from .altered import altered
from .results import RESULTS, machine, write

HALF = ExecutionConfig()
ENSEMBLE = ExecutionConfig("ensemble", m=0.01)
FINALISTS = 3
DEMONSTRATORS = ("human", "scripted")
PICK_PLACE = "so100_pick_place"

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One policy: what it is trained on, how, and how it is rolled out."""

    name: str
    demonstrator: str
    demonstrations: int
    seed: int
    settings: dict[str, Any]
    executions: dict[str, ExecutionConfig]
    n: int = 100
    seconds: float | None = None
    """Train for this long (the steps that fit are counted first), not for `steps`."""
    labels: dict[str, Any] = field(default_factory=dict)
    """What the rows in the result file are told apart by."""
    rows: str = "rows"
    """Name of the file that keeps the rows: a job with the training run of another one
    has the same `name` and `settings`, and rows of its own."""
    altered: str = ""
    """What was done to its demonstrations: a name of `benchmarks.altered`."""

    @property
    def task(self) -> str:
        """The simulated task."""
        return self.labels.get("task", PICK_PLACE)

    @property
    def data(self) -> str:
        """Name of the folder of its demonstrations."""
        cameras = self.settings.get("cameras", ())
        words = [
            "vision" if cameras else "state",
            *(cameras if len(cameras) < 2 else ()),
        ]
        words += [self.task.split(":")[-1]] if self.task != PICK_PLACE else []
        words += [self.demonstrator, str(self.demonstrations), str(self.seed)]
        return "_".join(words)


@dataclass
class Settings:
    """Which experiment, and where its runs are kept."""

    experiment: tyro.conf.Positional[
        Literal["state", "chunk_size", "single_step", "vision", "openarm"]
    ]
    runs: Path = Path("runs/benchmarks")
    """Folder of demonstrations and training runs."""
    jobs: int = 1
    """Policies trained side by side; 2 suits chunk_size, whose policies use one thread
    each and whose training time is not a result."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; all of them are in the result."""
    only: str = ""
    """Run only the policies whose name holds this: state_act, vision_200, ..."""


def every_seed(
    seeds: tuple[int, ...],
    name: str,
    labels: Row,
    settings: dict[str, Any],
    executions: dict[str, ExecutionConfig],
    demonstrator: str = "human",
    demonstrations: int = 50,
    **more: Any,
) -> list[Job]:
    """The same job with every seed; `more` are fields of `Job`."""
    return [
        Job(
            f"{name}_{seed}",
            demonstrator,
            demonstrations,
            seed,
            settings,
            executions,
            labels=labels,
            **more,
        )
        for seed in seeds
    ]


def state_jobs(seeds: tuple[int, ...]) -> list[Job]:
    """ACT and single-step cloning on joints and cube pose; cloning gets 120 s."""
    kinds = (
        ("act", STATE.act, STATE.execution, None),
        ("bc", STATE.single_step, HALF, 120.0),
    )
    jobs: list[Job] = []
    for who, seed, kind in itertools.product(DEMONSTRATORS, seeds, kinds):
        name, settings, execution, seconds = kind
        labels, ways = {"policy": name, "demonstrator": who}, {"demo": execution}
        name = f"state_{name}_{who}"
        jobs += every_seed((seed,), name, labels, settings, ways, who, seconds=seconds)
    return jobs


def chunk_size_jobs(seeds: tuple[int, ...]) -> list[Job]:
    """Success against k, with and without CVAE, chunks executed three ways."""
    jobs: list[Job] = []
    sizes = (1, 5, 10, 25, 50, 100)
    for who, k, cvae in itertools.product(DEMONSTRATORS, sizes, (True, False)):
        model = STATE.act.get("model", {}) | {
            "use_cvae": cvae,
            "cvae_actions_per_token": 5 if cvae and k % 5 == 0 else 1,
        }
        settings = {"chunk_size": k, "steps": 2000, "model": model, "threads": 1}
        executions = {"half": HALF}
        if k > 1:
            executions |= {"whole": ExecutionConfig("open_loop"), "ensemble": ENSEMBLE}
        name = f"k{k}_{'cvae' if cvae else 'plain'}_{who}"
        labels = {"demonstrator": who, "k": k, "cvae": cvae}
        jobs += every_seed(
            seeds, name, labels, STATE.act | settings, executions, demonstrator=who
        )
    return jobs


VARIANTS = (
    "mlp",
    "mlp noise 0.02",
    "mlp noise 0.1",
    "mlp delta",
    "mlp delta noise 0.02",
    "mlp delta noise 0.05",
    "mlp delta noise 0.1",
    "mlp delta noise 0.02 lr 2e-3",
    "mlp delta noise 0.02 lr 5e-3",
    "mlp delta noise 0.05 lr 2e-3",
    "mlp delta noise 0.05 lr 5e-3",
    "mlp delta noise 0.02 lr 2e-3 batch 256",
    "mlp delta noise 0.02 lr 2e-3 wide",
    "mlp delta noise 0.02 lr 3e-4",
    "mlp delta noise 0.02 wide",
    "mlp delta noise 0.02 l2",
    "transformer",
    "transformer delta",
    "transformer delta noise 0.02",
    "transformer delta noise 0.05",
    "transformer noise 0.02 lr 2e-3",
    "transformer delta noise 0.02 lr 2e-3",
)


def variant_settings(name: str) -> dict[str, Any]:
    """Training settings of one of `VARIANTS`, by the words of its name."""
    network, *words = name.split()
    value = dict(itertools.pairwise(words))
    settings: dict[str, Any] = {"policy": f"bc_{network}"}
    if "delta" in words:
        settings["action_target"] = "delta"
    for word, key in (("noise", "state_noise"), ("lr", "lr")):
        if word in words:
            settings[key] = float(value[word])
    if "batch" in words:
        settings["batch_size"] = int(value["batch"])
    if "wide" in words:
        settings["model"] = {"hidden": 512}
    if "l2" in words:
        settings["model"] = {"loss": "l2"}
    return settings


def single_step_jobs(seeds: tuple[int, ...]) -> list[Job]:
    """The search for the best single-step baseline: 120 s each, as ACT gets.

    All variants with the first seed; the best three go on with the others.
    """
    jobs: list[Job] = []
    for variant in VARIANTS:
        name, labels = f"single_{variant.replace(' ', '_')}", {"variant": variant}
        settings = {"threads": 1} | variant_settings(variant)
        jobs += every_seed(seeds, name, labels, settings, {"half": HALF}, seconds=120.0)
    return jobs


def vision_jobs(seeds: tuple[int, ...]) -> list[Job]:
    """Cameras instead of the cube's pose; 200 demonstrations, then fewer."""
    jobs: list[Job] = []
    for n in (200, 100, 50):
        settings = VISION.act | {"cameras": VISION.cameras, "limit": n}
        # Training time is a result for 200 only; one thread lets two run.
        settings |= {"threads": 1} if n < 200 else {}
        labels, executions = {"demonstrations": n}, {"demo": VISION.execution}
        jobs += every_seed(
            seeds, f"vision_{n}", labels, settings, executions, demonstrations=200
        )
    return jobs


def openarm_jobs(seeds: tuple[int, ...]) -> list[Job]:
    """Two arms: ACT on joints and objects' poses, after a person and a planner."""
    jobs: list[Job] = []
    for task in ("openarm_handover", "openarm_insertion"):
        recipe = recipe_for(task, vision=False)
        for who in DEMONSTRATORS:
            jobs += every_seed(
                seeds,
                f"{task}_{who}",
                {"task": task, "demonstrator": who},
                # Training time is act demo's to tell; one thread lets others work.
                recipe.act | {"threads": 1},
                {"demo": recipe.execution},
                who,
                recipe.demonstrations,
            )
    return jobs


EXPERIMENTS: dict[str, Callable[[tuple[int, ...]], list[Job]]] = {
    "state": state_jobs,
    "chunk_size": chunk_size_jobs,
    "single_step": single_step_jobs,
    "vision": vision_jobs,
    "openarm": openarm_jobs,
}


def record_once(
    folder: Path,
    demonstrator: str,
    n: int,
    seed: int,
    task: str | Task = PICK_PLACE,
    cameras: Sequence[str] = (),
) -> Path:
    """`record`, or what it made before; gives the folder back."""
    what = make_task(task) if isinstance(task, str) else task
    how: Any = {"demonstrator": demonstrator, "seed": seed, "cameras": cameras}
    with alone(folder):
        record(what, folder, n, **how, progress=False)
    return folder


def held_out(policy: Policy, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Errors (M, k, A) of chunks from every moment of some demonstrations.

    And which of them (M, k) lie within their episode.
    """
    demos = Demonstrations.load(data, use_env_state=True)
    seen: dict[str, Any] = {"qpos": demos.qpos, "env_state": demos.env_state}
    said = policy.predict_chunk(seen)  # (M, k, A)
    last = np.repeat(demos.starts + demos.lengths - 1, demos.lengths)[:, None]
    rows = np.arange(len(said))[:, None] + np.arange(said.shape[1])  # (M, k)
    return np.abs(said - demos.action[np.minimum(rows, last)]), rows <= last


def roll_out(
    policy: Policy,
    n: int,
    seed: int,
    out: Path | None,
    task: str | Task = PICK_PLACE,
    execution: ExecutionConfig = HALF,
) -> Evaluation:
    """`evaluate` on one thread, since others work beside it."""
    how: Any = {"n": n, "seed": seed, "out": out, "threads": 1, "progress": False}
    return evaluate(policy, task, execution, **how)


def run_job(job: Job, runs: Path) -> list[Row]:
    """Record, train and roll out one policy; or find what was done before."""
    import torch

    # Two policies side by side with two threads each would take turns at every layer.
    torch.set_num_threads(1)
    out = runs / job.name
    done = out / f"{job.rows}.json"
    what = json.loads(json.dumps(asdict(job)))  # as it comes back from JSON
    del what["rows"]  # the file's name, not its content
    if not job.altered:
        del what["altered"]
    if done.exists():
        found = read_json(done)
        if found["job"] != what:
            raise UserError(
                f"{out} was made with other settings; remove it, or choose other --runs"
            )
        return found["rows"]
    cameras = VISION.cameras if job.settings.get("cameras") else ()
    data = runs / job.data
    record_once(data, job.demonstrator, job.demonstrations, job.seed, job.task, cameras)
    if job.altered:
        data = altered(job.altered, data, job.seed)
    settings = {"data": data, "out": out, "seed": job.seed, "val_fraction": 0.0}
    settings |= {"tensorboard": False, **job.settings}
    if job.seconds:
        settings["steps"] = _steps(TrainConfig(**settings), job.seconds)
    trained = train(TrainConfig(**settings), progress=False)
    rows = []
    for name, execution in job.executions.items():
        # The search for a baseline has scenes of its own, so that the winner is
        # measured on scenes that did not choose it.
        scenes = job.seed + (100 if "variant" in job.labels else 0)
        kept = out / ("rollouts" if job.rows == "rows" else job.rows) / name
        result = roll_out(
            trained.policy, job.n, scenes, kept, job.task, execution=execution
        )
        rows.append(
            job.labels
            | {"seed": job.seed, "execution": name, "execute": asdict(execution)}
            | {"steps": trained.steps, "train_seconds": round(trained.seconds, 1)}
            | {"settings": job.settings, "machine": machine()}
            | result.to_json()
        )
        print(job.name, name, result, f"{trained.seconds:.0f} s", flush=True)
    # Of training and rollouts, also where this call found them done.
    rolled = sum(row["seconds"] for row in rows)
    rows[0]["job_seconds"] = round(trained.seconds + rolled, 1)
    write_json(done, {"job": what, "rows": rows})
    return rows


def _steps(config: TrainConfig, seconds: float) -> int:
    """The steps that fit, decided once for a run."""
    path = config.out / "steps.json"
    if not path.exists():
        write_json(path, {"steps": steps_that_fit(config, seconds)})
    return read_json(path)["steps"]


def total(group: list[Row]) -> Row:
    """Rows of several seeds as one: successes and n added up, Wilson's interval."""
    found = Rate(sum(r["successes"] for r in group), sum(r["n"] for r in group))
    return {
        "success": found.rate,
        "interval": found.interval,
        "n": found.n,
        "seeds": [r["seed"] for r in group],
        "each_seed": [r["rate"] for r in group],
    }


def mean(group: list[Row], key: str) -> float:
    """The mean of one number of some rows."""
    return sum(r[key] for r in group) / len(group)


def grouped(rows: list[Row], labels: Sequence[str]) -> list[tuple[Row, list[Row]]]:
    """Rows that have the same labels together, with these labels, in order."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in labels), []).append(row)
    return [(dict(zip(labels, key, strict=True)), g) for key, g in groups.items()]


def pooled(
    rows: list[Row],
    labels: Sequence[str],
    more: Callable[[list[Row]], Row] | None = None,
) -> list[Row]:
    """Rows over all seeds, one for each way of execution and set of labels.

    `more` says what else a group of rows has in common.
    """
    return [
        label
        | total(group)
        | {
            "jerk": mean(group, "jerk"),
            "frozen": mean(group, "frozen"),
            "train_seconds": [r["train_seconds"] for r in group],
            "steps": [r["steps"] for r in group],
        }
        | (more(group) if more else {})
        for label, group in grouped(rows, [*labels, "execution"])
    ]


def side_by_side(
    function: Callable[..., Any], tasks: Sequence[tuple], processes: int
) -> list[Any]:
    """`function(*task)` for each task, in order, so many processes at a time."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        return list(pool.map(function, *zip(*tasks, strict=True)))


def rows_of(
    jobs: list[Job],
    runs: Path,
    processes: int,
    work: Callable[[Job, Path], list[Row]] | None = None,
) -> list[Row]:
    """The rows of all jobs, each job in a process of its own, in order."""
    found = side_by_side(work or run_job, [(job, runs) for job in jobs], processes)
    return [row for rows in found for row in rows]


def run_jobs(jobs: list[Job], settings: Settings) -> list[Row]:
    """The rows of all jobs, `settings.jobs` at a time.

    A row that the committed result file holds is not made again, if the same job made
    it with the same versions; delete the file to make all rows anew.
    """
    kept: list[Row] = []
    path = RESULTS / f"{settings.experiment}.json"
    if path.exists():
        committed = read_json(path)
        if committed["versions"] == versions():
            # Their seconds were measured where that file was made.
            kept = [{"machine": committed["machine"]} | r for r in committed["runs"]]
    known = [committed_rows(job, kept) for job in jobs]
    missing = [job for job, found in zip(jobs, known, strict=True) if not found]
    made = iter(rows_of(missing, settings.runs, settings.jobs))
    return [
        row
        for job, found in zip(jobs, known, strict=True)
        for row in found or [next(made) for _ in job.executions]
    ]


def committed_rows(job: Job, rows: list[Row]) -> list[Row]:
    """The rows that `job` would give again; empty unless all of them are there."""
    what = job.labels | {"seed": job.seed, "settings": job.settings, "n": job.n}
    found = []
    for name, execution in job.executions.items():
        one = what | {"execution": name, "execute": asdict(execution)}
        one = json.loads(json.dumps(one))
        found += [r for r in rows if all(r.get(k) == v for k, v in one.items())]
    return found if len(found) == len(job.executions) else []


def main(settings: Settings) -> None:
    """Run one experiment and write data/results/<experiment>.json."""
    jobs = EXPERIMENTS[settings.experiment](settings.seeds)
    jobs = [job for job in jobs if settings.only in job.name]
    later: list[Job] = []
    if settings.experiment == "single_step":
        later = [job for job in jobs if job.seed != settings.seeds[0]]
        jobs = [job for job in jobs if job.seed == settings.seeds[0]]
    rows = run_jobs(jobs, settings)
    if later:
        best = sorted(rows, key=lambda row: -row["rate"])[:FINALISTS]
        finalists = {row["variant"] for row in best}
        later = [job for job in later if job.labels["variant"] in finalists]
        rows += run_jobs(later, settings)
    write(
        settings.experiment,
        sum(row.get("job_seconds", 0.0) for row in rows),
        {
            "task": PICK_PLACE if jobs[0].task == PICK_PLACE else "see each row",
            "seeds": settings.seeds,
            "summary": pooled(rows, list(jobs[0].labels)),
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
