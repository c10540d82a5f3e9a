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

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from act_minimal.demo import STATE, VISION, recipe_for, versions
from act_minimal.errors import UserError
from act_minimal.evaluation import evaluate, wilson
from act_minimal.execution import ExecutionConfig
from act_minimal.files import write_json
from act_minimal.training import TrainConfig, steps_that_fit, train
from benchmarks.results import RESULTS, machine, write

HALF = ExecutionConfig()
ENSEMBLE = ExecutionConfig("ensemble", m=0.01)
FINALISTS = 3
PICK_PLACE = "so100_pick_place"


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

    @property
    def task(self) -> str:
        """The simulated task."""
        return self.labels.get("task", PICK_PLACE)

    @property
    def data(self) -> str:
        """Name of the folder of its demonstrations."""
        words = ["vision" if self.settings.get("cameras") else "state"]
        words += [self.task] if self.task != PICK_PLACE else []
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


def state_jobs(seeds: tuple[int, ...]) -> Iterator[Job]:
    """ACT and single-step cloning on joints and cube pose; cloning gets 120 s."""
    for demonstrator in ("human", "scripted"):
        for seed in seeds:
            for name, settings in (("act", STATE.act), ("bc", STATE.single_step)):
                yield Job(
                    f"state_{name}_{demonstrator}_{seed}",
                    demonstrator,
                    50,
                    seed,
                    settings,
                    {"demo": STATE.execution if name == "act" else HALF},
                    seconds=None if name == "act" else 120.0,
                    labels={"policy": name, "demonstrator": demonstrator},
                )


def chunk_size_jobs(seeds: tuple[int, ...]) -> Iterator[Job]:
    """Success against k, with and without CVAE, chunks executed three ways."""
    for demonstrator in ("human", "scripted"):
        for k in (1, 5, 10, 25, 50, 100):
            for cvae in (True, False):
                for seed in seeds:
                    pack = 5 if cvae and k % 5 == 0 else 1
                    model = STATE.act.get("model", {}) | {
                        "use_cvae": cvae,
                        "cvae_actions_per_token": pack,
                    }
                    settings = STATE.act | {
                        "chunk_size": k,
                        "steps": 2000,
                        "model": model,
                        "threads": 1,
                    }
                    executions = {"half": HALF}
                    if k > 1:
                        executions |= {
                            "whole": ExecutionConfig("open_loop"),
                            "ensemble": ENSEMBLE,
                        }
                    yield Job(
                        f"k{k}_{'cvae' if cvae else 'plain'}_{demonstrator}_{seed}",
                        demonstrator,
                        50,
                        seed,
                        settings,
                        executions,
                        labels={"demonstrator": demonstrator, "k": k, "cvae": cvae},
                    )


def single_step_jobs(seeds: tuple[int, ...]) -> Iterator[Job]:
    """The search for the best single-step baseline: 120 s each, as ACT gets.

    All variants with the first seed; the best three go on with the others.
    """
    mlp, transformer = {"policy": "bc_mlp"}, {"policy": "bc_transformer"}
    delta = {"action_target": "delta"}
    noise = {"state_noise": 0.02}
    variants: dict[str, dict[str, Any]] = {
        "mlp": mlp,
        "mlp noise 0.02": mlp | noise,
        "mlp noise 0.1": mlp | {"state_noise": 0.1},
        "mlp delta": mlp | delta,
        "mlp delta noise 0.02": mlp | delta | noise,
        "mlp delta noise 0.05": mlp | delta | {"state_noise": 0.05},
        "mlp delta noise 0.1": mlp | delta | {"state_noise": 0.1},
        "mlp delta noise 0.02 lr 2e-3": mlp | delta | noise | {"lr": 2e-3},
        "mlp delta noise 0.02 lr 5e-3": mlp | delta | noise | {"lr": 5e-3},
        "mlp delta noise 0.05 lr 2e-3": mlp | delta | {"state_noise": 0.05, "lr": 2e-3},
        "mlp delta noise 0.05 lr 5e-3": mlp | delta | {"state_noise": 0.05, "lr": 5e-3},
        "mlp delta noise 0.02 lr 2e-3 batch 256": mlp
        | delta
        | noise
        | {"lr": 2e-3, "batch_size": 256},
        "mlp delta noise 0.02 lr 2e-3 wide": mlp
        | delta
        | noise
        | {"lr": 2e-3, "model": {"hidden": 512}},
        "mlp delta noise 0.02 lr 3e-4": mlp | delta | noise | {"lr": 3e-4},
        "mlp delta noise 0.02 wide": mlp | delta | noise | {"model": {"hidden": 512}},
        "mlp delta noise 0.02 l2": mlp | delta | noise | {"model": {"loss": "l2"}},
        "transformer": transformer,
        "transformer delta": transformer | delta,
        "transformer delta noise 0.02": transformer | delta | noise,
        "transformer delta noise 0.05": transformer | delta | {"state_noise": 0.05},
        "transformer noise 0.02 lr 2e-3": transformer | noise | {"lr": 2e-3},
        "transformer delta noise 0.02 lr 2e-3": transformer
        | delta
        | noise
        | {"lr": 2e-3},
    }
    for variant, settings in variants.items():
        for seed in seeds:
            yield Job(
                f"single_{variant.replace(' ', '_')}_{seed}",
                "human",
                50,
                seed,
                {"threads": 1} | settings,
                {"half": HALF},
                # Chosen by rollouts on scenes that no other result is measured on.
                n=100,
                seconds=120.0,
                labels={"variant": variant},
            )


def vision_jobs(seeds: tuple[int, ...]) -> Iterator[Job]:
    """Cameras instead of the cube's pose; 200 demonstrations, then fewer."""
    for demonstrations in (200, 100, 50):
        for seed in seeds:
            yield Job(
                f"vision_{demonstrations}_{seed}",
                "human",
                200,
                seed,
                VISION.act
                | {"cameras": VISION.cameras, "limit": demonstrations}
                # Training time is a result for 200 only; one thread lets two run.
                | ({"threads": 1} if demonstrations < 200 else {}),
                {"demo": VISION.execution},
                labels={"demonstrations": demonstrations},
            )


def openarm_jobs(seeds: tuple[int, ...]) -> Iterator[Job]:
    """Two arms: ACT on joints and objects' poses, after a person and a planner."""
    tasks = ("openarm_handover", "openarm_insertion")
    for task in tasks:
        recipe = recipe_for(task, vision=False)
        for demonstrator in ("human", "scripted"):
            for seed in seeds:
                yield Job(
                    f"{task}_{demonstrator}_{seed}",
                    demonstrator,
                    recipe.demonstrations,
                    seed,
                    # Training time is act demo's to tell; one thread lets others work.
                    recipe.act | {"threads": 1},
                    {"demo": recipe.execution},
                    labels={"task": task, "demonstrator": demonstrator},
                )


EXPERIMENTS: dict[str, Callable[[tuple[int, ...]], Iterator[Job]]] = {
    "state": state_jobs,
    "chunk_size": chunk_size_jobs,
    "single_step": single_step_jobs,
    "vision": vision_jobs,
    "openarm": openarm_jobs,
}


def run_job(job: Job, runs: Path) -> list[dict[str, Any]]:
    """Record, train and roll out one policy; or find what was done before."""
    import torch

    from act_minimal.sim import make_task
    from act_minimal.sim.recording import record

    # Two policies side by side with two threads each would take turns at every layer.
    torch.set_num_threads(1)
    out = runs / job.name
    done = out / f"{job.rows}.json"
    what = json.loads(json.dumps(asdict(job)))  # as it comes back from JSON
    del what["rows"]  # the file's name, not its content
    if done.exists():
        found = json.loads(done.read_text(encoding="utf-8"))
        if found["job"] != what:
            raise UserError(
                f"{out} was made with other settings; remove it, or choose other --runs"
            )
        return found["rows"]
    cameras = job.settings.get("cameras", ())
    data = runs / job.data
    record(
        make_task(job.task),
        data,
        job.demonstrations,
        demonstrator=job.demonstrator,
        seed=job.seed,
        cameras=cameras,
        progress=False,
    )
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
        result = evaluate(
            trained.policy,
            job.task,
            execution,
            n=job.n,
            seed=scenes,
            out=out / ("rollouts" if job.rows == "rows" else job.rows) / name,
            threads=1,
            progress=False,
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
    return json.loads(path.read_text(encoding="utf-8"))["steps"]


def total(group: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of several seeds as one: successes and n added up, Wilson's interval."""
    successes, n = sum(r["successes"] for r in group), sum(r["n"] for r in group)
    return {
        "success": successes / n,
        "interval": wilson(successes, n),
        "n": n,
        "seeds": [r["seed"] for r in group],
        "each_seed": [r["rate"] for r in group],
    }


def pooled(rows: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """Rows over all seeds, one for each way of execution and set of labels."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        key = json.dumps({name: row[name] for name in [*labels, "execution"]})
        groups.setdefault(key, []).append(row)
    return [
        json.loads(key)
        | total(group)
        | {
            "jerk": sum(r["jerk"] for r in group) / len(group),
            "frozen": sum(r["frozen"] for r in group) / len(group),
            "train_seconds": [r["train_seconds"] for r in group],
            "steps": [r["steps"] for r in group],
        }
        for key, group in groups.items()
    ]


def rows_of(
    jobs: list[Job],
    runs: Path,
    processes: int,
    work: Callable[[Job, Path], list[dict[str, Any]]] | None = None,
) -> list[dict[str, Any]]:
    """The rows of all jobs, each job in a process of its own, in order."""
    work = work or run_job
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        return [r for rows in pool.map(work, jobs, [runs] * len(jobs)) for r in rows]


def run_jobs(jobs: list[Job], settings: Settings) -> list[dict[str, Any]]:
    """The rows of all jobs, `settings.jobs` at a time.

    A row that the committed result file holds is not made again, if the same job made
    it with the same versions; delete the file to make all rows anew.
    """
    kept: list[dict[str, Any]] = []
    path = RESULTS / f"{settings.experiment}.json"
    if path.exists():
        committed = json.loads(path.read_text(encoding="utf-8"))
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


def committed_rows(job: Job, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
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
    jobs = list(EXPERIMENTS[settings.experiment](settings.seeds))
    jobs = [job for job in jobs if settings.only in job.name]
    if settings.experiment == "single_step":
        rows = run_jobs(
            [job for job in jobs if job.seed == settings.seeds[0]], settings
        )
        best = sorted(rows, key=lambda row: -row["rate"])[:FINALISTS]
        finalists = {row["variant"] for row in best}
        later = [job for job in jobs if job.seed != settings.seeds[0]]
        rows += run_jobs(
            [job for job in later if job.labels["variant"] in finalists], settings
        )
    else:
        rows = run_jobs(jobs, settings)
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
