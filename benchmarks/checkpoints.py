"""Measure the policies of seed 0 on fresh scenes and put them into data/checkpoints.

uv run python -m benchmarks.rollouts state --only state_act
uv run python -m benchmarks.rollouts vision --only vision_200
uv run python -m benchmarks.checkpoints
"""

import time
from pathlib import Path

import tyro

from act_minimal.checkpoint import find_checkpoint, load_policy, save_policy
from act_minimal.evaluation import evaluate
from act_minimal.support.files import read_json

from .results import RESULTS, write

FROM = {
    "so100_pick_place_state": "state_act_human_0",
    "so100_pick_place_vision": "vision_200_0",
}
SCENES = 10  # evaluation seed: no run above has seen these scenes


def main(runs: Path = Path("runs/benchmarks"), n: int = 300) -> None:
    """Write the checkpoints and data/results/checkpoints.json."""
    start = time.perf_counter()
    rows = []
    for name, run in FROM.items():
        folder = find_checkpoint(runs / run)
        policy = load_policy(folder)
        result = evaluate(policy, n=n, seed=SCENES)
        card = read_json(folder / "card.json")
        card["success"] = f"{result} on scenes of evaluation seed {SCENES}"
        card["command"] = f"python -m benchmarks.rollouts (policy {run})"
        save_policy(RESULTS.parent / "checkpoints" / name, policy, card)
        rows.append(
            {
                "checkpoint": name,
                "demonstrations": card["episodes"],
                "train_seconds": card["seconds"],
                **result.to_json(),
            }
        )
        print(name, result)
    write("checkpoints", time.perf_counter() - start, {"checkpoints": rows})


if __name__ == "__main__":
    tyro.cli(main)
