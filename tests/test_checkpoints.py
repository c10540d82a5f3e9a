"""The committed policies load, and do what their results say."""

import json
from pathlib import Path

import pytest

from act_minimal.checkpoint import load_policy
from act_minimal.evaluation import evaluate, wilson

DATA = Path(__file__).parents[1] / "data"
RESULTS = json.loads((DATA / "results" / "checkpoints.json").read_text())


@pytest.mark.parametrize("row", RESULTS["checkpoints"], ids=lambda r: r["checkpoint"])
def test_committed_checkpoint_still_succeeds(row):
    policy = load_policy(DATA / "checkpoints" / row["checkpoint"])
    n = 20
    task = row.get("task", "so100_pick_place")
    result = evaluate(policy, task, n=n, seed=11, progress=False)
    # Other scenes than those of the result: the two intervals must overlap.
    assert wilson(result.successes, n)[1] >= row["interval"][0]
    assert wilson(result.successes, n)[0] <= row["interval"][1]
    assert result.successes >= 0.75 * n


def test_vision_checkpoint_reaches_95_per_cent():
    row = next(r for r in RESULTS["checkpoints"] if "vision" in r["checkpoint"])
    assert row["n"] >= 300
    assert row["rate"] >= 0.95
