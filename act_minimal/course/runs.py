"""Demonstrations, policies and rollouts for lessons: made once, found again by content.

The same call in another cell, edition or lesson finds what is there. Two notebooks
that want the same thing at once wait for each other.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..evaluation import Evaluation, evaluate, fingerprint
from ..execution import ExecutionConfig
from ..policy import Policy
from ..training import TrainResult, train
from ..training_config import TrainConfig
from .place import home

TASK = "so100_pick_place"


def demonstrations(
    n: int = 50,
    demonstrator: str = "human",
    *,
    seed: int = 0,
    cameras: tuple[str, ...] = (),
) -> Path:
    """A folder of `n` simulated demonstrations."""
    from ..sim import make_task
    from ..sim.recording import record

    what = f"{demonstrator}_{n}_{seed}" + "".join(f"_{c}" for c in cameras)
    folder = home() / "demonstrations" / what
    with _alone(folder):
        record(
            make_task(TASK),
            folder,
            n,
            demonstrator=demonstrator,
            seed=seed,
            cameras=cameras,
        )
    return folder


def trained(data: Path, **settings: Any) -> TrainResult:
    """Train a policy on demonstrations, or find the finished run of these settings.

    Args:
        data: folder of demonstrations.
        **settings: fields of `TrainConfig`.
    """
    settings = {"threads": 1, "val_fraction": 0.0, "tensorboard": False} | settings
    content = json.dumps([data.name, settings], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    kind = settings.get("policy", "act")
    out = home() / "policies" / f"{kind}_{data.name}_{digest}"
    with _alone(out):
        return train(TrainConfig(data=data, out=out, **settings))


def rollouts(
    policy: Policy, execution: ExecutionConfig | None = None, *, n: int, seed: int = 0
) -> Evaluation:
    """Roll a policy out on `n` fresh scenes, or find these very rollouts."""
    execution = execution or ExecutionConfig()
    how = "_".join(str(x) for x in asdict(execution).values())
    out = home() / "rollouts" / f"{fingerprint(policy)}_{how}_{n}_{seed}"
    with _alone(out):
        return evaluate(policy, TASK, execution, n=n, seed=seed, out=out)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        yield
