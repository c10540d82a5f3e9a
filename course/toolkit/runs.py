"""Demonstrations, policies and rollouts for lessons: made once, found again by content.

The same call in another cell, edition or lesson finds what is there. Two notebooks
that want the same thing at once wait for each other.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from act_minimal.evaluation import Evaluation, evaluate, fingerprint
from act_minimal.execution import ExecutionConfig
from act_minimal.policy import Policy
from act_minimal.settings import TrainConfig
from act_minimal.sim import Task, make_task
from act_minimal.training import TrainResult, train

from .paths import home

TASK = "so100_pick_place"


def demonstrations(
    n: int = 50,
    demonstrator: str = "human",
    *,
    seed: int = 0,
    cameras: tuple[str, ...] = (),
) -> Path:
    """A folder of `n` simulated demonstrations."""
    from act_minimal.sim.recording import record

    what = f"{demonstrator}_{n}_{seed}" + "".join(f"_{c}" for c in cameras)
    folder = home() / "demonstrations" / what
    with alone(folder):
        record(
            make_task(TASK),
            folder,
            n,
            demonstrator=demonstrator,
            seed=seed,
            cameras=cameras,
        )
    return folder


def trained(
    data: Path,
    *,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    progress: bool = True,
    **settings: Any,
) -> TrainResult:
    """Train a policy on demonstrations, or find the finished run of these settings.

    Args:
        data: folder of demonstrations.
        on_step: called with the log record of steps; see `training.train`.
        progress: whether to show a bar.
        **settings: fields of `TrainConfig`.
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
    threads: int = 0,
) -> Evaluation:
    """Roll a policy out on `n` fresh scenes, or find these very rollouts.

    Args:
        policy: the policy.
        execution: how chunks become actions; by default half of each is executed.
        n: number of rollouts.
        seed: decides the scenes.
        task: a changed task, with a name of its own; by default the course's.
        threads: that step the scenes; 0 uses all CPUs.
    """
    execution = execution or ExecutionConfig()
    task = task or make_task(TASK)
    how = [fingerprint(policy), *asdict(execution).values(), n, seed]
    if task.name != TASK:
        how.append(re.sub(r"\W+", "_", task.name))
    out = home() / "rollouts" / "_".join(map(str, how))
    with alone(out):
        return evaluate(
            policy, task, execution, n=n, seed=seed, out=out, threads=threads
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time makes what is in `folder`; the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        yield
