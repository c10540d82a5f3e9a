"""Measure the policies of seed 0 on fresh scenes and put them into data/checkpoints.

uv run python -m benchmarks.rollouts state --only state_act
uv run python -m benchmarks.rollouts vision --only vision_200
uv run python -m benchmarks.claims C23 --worlds belt
uv run python -m benchmarks.checkpoints
"""

import time
from pathlib import Path
from typing import NamedTuple

import tyro

from act_minimal.checkpoint import find_checkpoint, load_policy, save_policy
from act_minimal.evaluation import evaluate
from act_minimal.support.files import read_json

from .results import RESULTS, write
from .rollouts import PICK_PLACE


class Source(NamedTuple):
    """Where a checkpoint comes from."""

    run: str
    """Its training run, below `--runs`."""
    command: str
    task: str = PICK_PLACE


BELT = "so100_belt"
FROM = {
    "so100_pick_place_state": Source("state_act_human_0", "rollouts"),
    "so100_pick_place_vision": Source("vision_200_0", "rollouts"),
} | {
    f"{BELT}_{kind}": Source(f"late/{BELT}/{run}_0", "claims C23", BELT)
    for kind, run in (
        ("plain", "plain"),
        ("prefix", "prefix"),
        ("future", "future_lag"),
    )
}
RUNS = Path("runs/benchmarks")
SCENES = 10  # evaluation seed: no run above has seen these scenes


def main(runs: Path = RUNS, n: int = 300, only: str = "") -> None:
    """Write the checkpoints and data/results/checkpoints.json.

    Args:
        runs: folder of the training runs.
        n: rollouts of each.
        only: checkpoints whose name begins like this; the others stay.
    """
    start = time.perf_counter()
    rows = []
    if only:
        kept = read_json(RESULTS / "checkpoints.json")["checkpoints"]
        rows = [row for row in kept if not row["checkpoint"].startswith(only)]
    for name, (run, command, task) in FROM.items():
        if not name.startswith(only):
            continue
        folder = find_checkpoint(runs / run)
        policy = load_policy(folder)
        result = evaluate(policy, task, n=n, seed=SCENES)
        card = read_json(folder / "card.json")
        card["data"] = (RUNS / run).with_name(Path(card["data"]).name).as_posix()
        card["success"] = f"{result} on scenes of evaluation seed {SCENES}"
        card["command"] = f"python -m benchmarks.{command} (policy {run})"
        save_policy(RESULTS.parent / "checkpoints" / name, policy, card)
        rows.append(
            {
                "checkpoint": name,
                "task": task,
                "demonstrations": card["episodes"],
                "train_seconds": card["seconds"],
                **result.to_json(),
            }
        )
        print(name, result)
    write("checkpoints", time.perf_counter() - start, {"checkpoints": rows})


if __name__ == "__main__":
    tyro.cli(main)
