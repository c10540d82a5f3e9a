"""Claim C29: what is compared, and the policy without a network."""

import numpy as np
import pytest

from act_minimal.dataset import Demonstrations
from act_minimal.episodes import Episode, episode_path, save_episode
from benchmarks.claims import ways
from benchmarks.claims.ways import Nearest, Ways

pytestmark = pytest.mark.quick
SMALL = Ways(heads=("l1", "flow"), demonstrations=(25, 50), seeds=(0, 1))


def test_every_head_gets_the_same_trials_and_then_its_best_rate():
    tried = ways.trials(SMALL)
    assert [(job.labels["head"], job.settings["lr"]) for job in tried] == [
        (head, rate) for head in ("l1", "flow") for rate in ways.RATES
    ]
    assert {job.seed for job in tried} == {ways.TRIAL}
    rows = [
        {"head": "l1", "lr": 1e-3, "rate": 0.8},
        {"head": "l1", "lr": 2e-3, "rate": 0.9},
        {"head": "flow", "lr": 1e-3, "rate": 0.7},
        {"head": "flow", "lr": 2e-3, "rate": 0.6},
    ]
    assert ways.chosen(rows) == {"l1": 2e-3, "flow": 1e-3}


def test_jobs_differ_in_what_is_compared_and_in_nothing_else():
    found = ways.jobs(SMALL, {"l1": 1e-3, "flow": 2e-3})
    assert len({job.name for job in found}) == len(found)
    human = [job for job in found if job.labels["world"] == "human"]
    # Two heads, two seeds; 25 and 50 with equal updates, 50 with equal seconds.
    assert len(human) == 2 * 2 * 3
    assert {job.seconds for job in human if job.demonstrations == 25} == {None}
    assert {job.seconds for job in human if job.demonstrations == 50} == {None, 60.0}
    one, other = (
        next(job for job in human if job.labels["head"] == head)
        for head in ("l1", "flow")
    )
    assert one.settings["model"] | {"head": "flow"} == other.settings["model"]
    for key in ("steps", "chunk_size", "state_noise"):
        assert one.settings[key] == other.settings[key]
    assert (one.settings["lr"], other.settings["lr"]) == (1e-3, 2e-3)
    arms = [job for job in found if job.labels["world"] == "insertion"]
    assert {job.task for job in arms} == {"openarm_insertion"}
    assert {job.demonstrations for job in arms} == {50}


def test_the_nearest_neighbour_copies_the_chunk_of_the_nearest_moment(tmp_path):
    for i in range(2):
        steps = np.arange(30, dtype=np.float32)[:, None] + 100 * i
        action = np.concatenate([steps, -steps], 1)
        still = np.zeros_like(action)
        episode = Episode(action, still, still, action + 0.5, env_state=steps)
        save_episode(episode_path(tmp_path, i), episode)
    demos = Demonstrations.load(tmp_path, use_env_state=True)
    policy = Nearest(demos, 4)
    # Frames on both sides weigh alike, so their mean is that of the place itself.
    seen = {"qpos": np.array([[110.0, -110.0]]), "env_state": np.array([[110.0]])}
    chunk = policy.predict_chunk(seen)
    assert chunk.shape == (1, 4, 2)
    np.testing.assert_allclose(chunk[0, :, 0], 110.5 + np.arange(4), atol=0.6)
    last = {"qpos": np.array([[29.0, -29.0]]), "env_state": np.array([[29.0]])}
    chunk = policy.predict_chunk(last)  # never goes on into the next episode
    assert chunk[0, :, 0].max() <= 29.5


def test_a_summary_pools_seeds_and_says_which_ways_were_kept():
    common = {"task": "post", "head": "flow", "demonstrations": 100}
    common |= {"budget": "updates", "execution": "half", "n": 10, "rate": 0.9}
    common |= {"jerk": 1.0, "train_seconds": 2.0, "steps": 5, "ms": 3.0}
    rows = [
        common | {"seed": 0, "successes": 9, "went_left": 3, "one_place_left": 0.3},
        common | {"seed": 1, "successes": 10, "went_left": 8, "one_place_left": 0.9},
    ]
    (row,) = ways.summarise(rows)
    assert row["success"] == 0.95
    assert row["n"] == 20
    assert row["went_left"] == 11 / 20
    assert row["rarer_way"] == pytest.approx(0.2)
    without = [{k: x for k, x in r.items() if k != "ms"} for r in rows]
    assert "rarer_way" not in ways.summarise(without)[0]
