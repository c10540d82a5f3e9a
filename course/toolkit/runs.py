"""Demonstrations, policies and rollouts for lessons: made once, found again by content.

The same call in another cell, edition or lesson finds what is there. Two notebooks
that want the same thing at once wait for each other.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from act_minimal.evaluation import Evaluation, evaluate, fingerprint
from act_minimal.execution import ExecutionConfig
from act_minimal.policy import Policy
from act_minimal.settings import TrainConfig
from act_minimal.sim import Task, make_task
from act_minimal.support.files import explained
from act_minimal.training import TrainResult, train

from .paths import home

TASK = "so100_pick_place"


def demonstrations(n: int = 50, demonstrator: str = "human", *, seed: int = 0) -> Path:
    """A folder of `n` simulated demonstrations."""
    from act_minimal.sim.recording import record

    folder = home() / "demonstrations" / f"{demonstrator}_{n}_{seed}"
    with alone(folder):
        record(make_task(TASK), folder, n, demonstrator=demonstrator, seed=seed)
    return folder


def trained(
    data: Path,
    *,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    progress: bool = True,
    **settings: Any,
) -> TrainResult:
    """Train a policy on demonstrations, or find the finished run of these settings.

    Settings are fields of `TrainConfig`; for `on_step` see `training.train`.
    """
    settings = {"threads": 1, "val_fraction": 0.0, "tensorboard": False} | settings
    content = json.dumps([data.name, settings], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    kind = settings.get("policy", "act")
    out = home() / "policies" / f"{kind}_{data.name}_{digest}"
    with alone(out):
        config = TrainConfig(data=data, out=out, **settings)
        return train(config, on_step=on_step, progress=progress)


def rollouts(
    policy: Policy,
    execution: ExecutionConfig | None = None,
    *,
    n: int,
    seed: int = 0,
    task: Task | None = None,
    delay: int = 0,
    threads: int = 0,
) -> Evaluation:
    """Roll a policy out on `n` fresh scenes, or find these very rollouts.

    By default half of each chunk is executed, in the course's task, by a policy that
    takes no time; a changed task needs a name of its own.
    """
    execution = execution or ExecutionConfig()
    task = task or make_task(TASK)
    how = [fingerprint(policy), *execution.to_json().values(), n, seed]
    if task.name != TASK:
        how.append(task.name)
    if delay:
        how.append(f"delay{delay}")
    # Neither every task's name nor `module:Class` may stand in a file's name.
    out = home() / "rollouts" / re.sub(r"[^\w.-]+", "_", "_".join(map(str, how)))
    with alone(out):
        return evaluate(
            policy,
            task,
            execution,
            n=n,
            seed=seed,
            out=out,
            delay=delay,
            threads=threads,
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time makes what is in `folder`; the others wait.

    Raises:
        UserError: the place cannot be written to.
    """
    lock = folder.parent / f".{folder.name}.lock"
    with explained(folder, temporary=lock):
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock).acquire()
    with held:
        yield
