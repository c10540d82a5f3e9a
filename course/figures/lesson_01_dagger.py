"""Lesson 01: DAgger on the simulated arm, by the learner's loop or by the course's."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from act_minimal.dataset import Demonstrations
from act_minimal.episodes import Episode, list_episodes, save_next_episode
from act_minimal.policy import Policy
from act_minimal.sim.so100.arm import gripper_to_jaw

from ..toolkit import runs
from ..toolkit.checks import check
from ..toolkit.paths import home
from .lesson_01_corrections import Corrector
from .lesson_01_drift import TASK, visited

GIVEN, ROUNDS, EACH = 25, 5, 5  # demonstrations; then rounds of so many rollouts
TICKS = 200  # of a rollout that are labelled
STEPS, FINAL = 750, 3000  # updates of a policy within the loop, and of the last one
Pair = tuple[np.ndarray, np.ndarray]  # states (T, 13), labels (T, 6)


def given(n: int = GIVEN) -> list[Pair]:
    """The first of the 50 human-like demonstrations, as pairs."""
    demos, pairs = Demonstrations.load(runs.demonstrations(50)), []
    assert demos.env_state is not None
    states = np.concatenate([demos.qpos, demos.env_state], 1)  # (M, 13)
    for start, length in list(zip(demos.starts, demos.lengths, strict=True))[:n]:
        rows = slice(start, start + length)
        pairs.append((states[rows], demos.action[rows]))
    return pairs


def retrain(pairs: Sequence[Pair], steps: int | None = None) -> Policy:
    """A single-step policy trained on pairs from scratch."""
    steps = steps or STEPS
    digest = hashlib.sha256()
    for pair in pairs:
        for part in pair:
            digest.update(np.asarray(part, np.float32).tobytes())
    folder = home() / "demonstrations" / f"pairs_{digest.hexdigest()[:12]}"
    with runs.alone(folder):
        for states, labels in pairs[len(list_episodes(folder)) :]:
            state = np.asarray(states, np.float32)
            episode = Episode(
                qpos=state[:, :6],
                qvel=np.zeros_like(state[:, :6]),
                effort=np.zeros_like(state[:, :6]),
                env_state=state[:, 6:],
                action=np.asarray(labels, np.float32),
                fps=TASK.fps,
                attributes={"success": True, "task": TASK.name},
            )
            save_next_episode(folder, episode)
    how: dict[str, Any] = {"policy": "bc_mlp", "steps": steps, "save_every": steps}
    return runs.trained(folder, **how).policy


class Drive:
    """Lets a policy drive in fresh scenes, other ones at every call."""

    def __init__(self, n: int):
        self.n, self.calls = n, 0

    def __call__(self, policy: Policy) -> list[np.ndarray]:
        """The states (T, 13) that it visits, one array a rollout."""
        self.calls += 1
        found = runs.rollouts(policy, n=self.n, seed=500 + self.calls)
        return [states[:TICKS] for states in visited(found)]


class Expert:
    """The expert with feedback: what would be right in each state (T, 13)."""

    def __init__(self):
        self.corrector = Corrector()

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """Actions (T, 6)."""
        qpos = np.array(states, float)
        qpos[:, 5] = [gripper_to_jaw(opening) for opening in qpos[:, 5]]
        return np.stack([self.corrector(row) for row in qpos])


def course_dagger(
    pairs: list[Pair], rounds: int, retrain: Callable, drive: Callable, expert: Callable
) -> tuple[Any, list[Pair]]:
    """The exercise's answer, for a lesson that is read without it."""
    policy, pairs = retrain(pairs), list(pairs)
    for _ in range(rounds):
        pairs += [(states, expert(states)) for states in drive(policy)]
        policy = retrain(pairs)
    return policy, pairs


def learn(loop: Callable) -> tuple[str, list[Pair]]:
    """What the learner's loop collects on the arm, or the course's in its place."""
    right = check("01.dagger", loop).state == "right"
    run = loop if right else course_dagger
    pairs = run(given(), ROUNDS, retrain, Drive(EACH), Expert())[1]
    whose = "your DAgger" if right else "the course's DAgger (yours is not right yet)"
    return whose, pairs
