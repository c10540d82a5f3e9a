"""Trials of single-step policies, shared by C1, C12 and C13; kept, and found again."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.checkpoint import load_policy
from act_minimal.control import Observation, run
from act_minimal.dataset import Demonstrations
from act_minimal.episodes import (
    Episode,
    episode_path,
    list_episodes,
    load_episode,
    save_episode,
)
from act_minimal.evaluation import Rate, Rollout, evaluation_scenes, jerk, still
from act_minimal.execution import make_executor
from act_minimal.policy import Policy
from act_minimal.settings import TrainConfig
from act_minimal.sim import make_task
from act_minimal.sim.recording import scene_seed
from act_minimal.sim.robot import SimRobot
from act_minimal.sim.so100.arm import joint_limits
from act_minimal.sim.world import World
from act_minimal.support.files import read_json, write_json
from act_minimal.training import TrainResult, train
from course.figures import lesson_01_corrections as corrections
from course.toolkit.runs import alone

from ..rollouts import HALF, side_by_side
from .claim import Training

TASK = make_task(corrections.TASK)
LOWEST, HIGHEST = joint_limits().T.copy()  # (6,) each, rad
LOWEST[5], HIGHEST[5] = 0.0, 1.0
ROUNDS = 5  # of DAgger
CORRECTED_TICKS = 200  # of a corrected rollout at most
HELD_OUT = 10  # demonstrations that measure the error on the expert's states
SIZES = Training(runs=Path("runs/claims"), steps=3000)


@dataclass(frozen=True)
class Trial:
    """One policy: how it is shown the task, what it sees, how it is trained."""

    name: str
    seed: int
    labels: dict[str, Any]
    expert: str = "human"
    demonstrations: int = 50
    steps: int = 3000
    n: int = 100
    disturb: float = 0.0
    """DART: deviation of what is added to the expert's executed actions, rad."""
    dagger: bool = False
    """Half of the demonstrations are rollouts of the policy, labelled by `Corrector`;
    five rounds."""
    history: int = 1
    """Observations that the policy sees, the present one included."""
    last_action: bool = False
    """Whether it also sees the action before."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of training, on top of `bc_mlp` with a chunk of one."""

    @property
    def delta(self) -> bool:
        """Whether targets are relative to the joints."""
        return self.settings.get("action_target") == "delta"

    @property
    def plain(self) -> bool:
        """Whether the policy sees what every state policy sees."""
        return self.history == 1 and not self.last_action


# --- what the policy sees -------------------------------------------------------------


def extras(
    trial: Trial, qpos: Sequence[np.ndarray], pose: Sequence[np.ndarray], last: Any
) -> np.ndarray:
    """What a trial adds to the cube's pose, (n, X).

    Differences to the present, not the past positions: what a network should notice
    should not be a small difference of two large inputs. The observations before, (n,
    S) and (n, E) each, come newest first; `last` (n, A) is the action before.
    """
    parts = [qpos[0][:, :0]]
    for i in range(1, trial.history):
        parts += [qpos[i] - qpos[0], pose[i] - pose[0]]
    if trial.last_action:
        # In the form of the target: to copy it is the identity.
        parts.append(last - qpos[0] if trial.delta else last)
    return np.concatenate(parts, 1)


def changed_copies(data: Path, out: Path, change: Callable[[Episode], None]) -> Path:
    """Copies of demonstrations, each changed in place; gives `out`, made once."""
    paths = list_episodes(data)
    if len(list_episodes(out)) < len(paths):
        for i, path in enumerate(paths):
            if not episode_path(out, i).exists():
                episode = load_episode(path)
                change(episode)
                save_episode(episode_path(out, i), episode)
    return out


def widen(trial: Trial, data: Path, out: Path) -> Path:
    """Copies of demonstrations in which the pose carries the trial's extras."""

    def change(episode: Episode) -> None:
        assert episode.env_state is not None
        before = [
            np.maximum(np.arange(len(episode)) - j, 0) for j in range(trial.history)
        ]
        last = np.concatenate([episode.qpos[:1], episode.action[:-1]])
        more = extras(
            trial,
            [episode.qpos[t] for t in before],
            [episode.env_state[t] for t in before],
            last,
        )
        episode.env_state = np.concatenate([episode.env_state, more], 1)

    return changed_copies(data, out, change)


class Remembering(SimRobot):
    """A simulated robot that also shows the past, and that can be disturbed."""

    def __init__(self, scenes: Sequence[int], trial: Trial, disturb: float, seed: int):
        super().__init__(TASK, scenes, threads=1)
        self.trial = trial
        self.past: list[tuple[np.ndarray, np.ndarray]] = []
        self.last: np.ndarray | None = None
        rngs = [np.random.default_rng([seed, scene]) for scene in scenes]
        noise = [
            corrections.slow_noise(TASK.max_ticks, disturb, TASK.fps, r) for r in rngs
        ]
        self.noise = np.stack(noise, 1)  # (T, n, A)
        self.tick = 0

    def observe(self, cameras: Sequence[str] = ()) -> Observation:
        """See `Robot.observe`; called once a tick."""
        seen = super().observe(cameras)
        self.past.insert(0, (seen["qpos"], seen["env_state"]))
        while len(self.past) <= self.trial.history:
            self.past.append(self.past[-1])
        del self.past[self.trial.history :]
        last = seen["qpos"] if self.last is None else self.last
        qpos, pose = zip(*self.past, strict=True)
        more = extras(self.trial, qpos, pose, last)
        seen["env_state"] = np.concatenate([seen["env_state"], more], 1)
        return seen

    def act(self, action: np.ndarray) -> None:
        # As it was sent: no arm is told to leave its range, and a policy that copies
        # what it said would else run away to infinity.
        self.last = np.clip(action, LOWEST, HIGHEST).astype(np.float32)
        super().act(action + self.noise[self.tick])
        self.tick += 1


def roll_out(
    policy: Policy, trial: Trial, n: int, disturb: float = 0.0
) -> list[Rollout]:
    """Roll a policy out on the scenes that `evaluate` would take, 50 side by side."""
    rollouts: list[Rollout] = []
    scenes = evaluation_scenes(trial.seed, n)
    for first in range(0, n, 50):
        group = scenes[first : first + 50]
        robot = Remembering(group, trial, disturb, trial.seed)
        states: list[list[np.ndarray]] = [[] for _ in group]
        arms: list[list[np.ndarray]] = [[] for _ in group]

        def on_tick(tick, seen, action, robot=robot, states=states, arms=arms):
            for i in robot.alive:
                states[i].append(robot.world.qpos[i].astype(np.float32))
                arms[i].append(seen["qpos"][i])
            return len(robot.alive) == 0

        robot.connect()
        executor = make_executor(HALF, policy.chunk_size)
        run(robot, policy, executor, TASK.max_ticks, on_tick=on_tick)
        for i, scene in enumerate(group):
            arm = np.stack(arms[i])
            rollouts.append(
                Rollout(
                    scene=scene,
                    success=bool(robot.world.success[i]),
                    ticks=len(arm),
                    jerk=jerk(arm[:, :-1], robot.fps),
                    frozen=float(still(arm).mean()),
                    qpos=np.stack(states[i]),
                )
            )
        robot.close()
    return rollouts


# --- training -------------------------------------------------------------------------


def demonstrations(trial: Trial, runs: Path, *, held_out: bool = False) -> Path:
    """The trial's demonstrations, widened; or some that it is not trained on."""
    n = HELD_OUT if held_out else trial.demonstrations
    seed = trial.seed + (5000 if held_out else 0)
    disturb = 0.0 if held_out else trial.disturb
    data = recorded(runs, trial.expert, n, seed, disturb)
    if trial.plain:
        return data
    kind = f"h{trial.history}" + ("_last" * trial.last_action)
    kind += "_delta" * (trial.delta and trial.last_action)
    with alone(runs / "widen"):
        return widen(trial, data, runs / f"{data.name}_{kind}")


def recorded(runs: Path, expert: str, n: int, seed: int, disturb: float = 0.0) -> Path:
    """Demonstrations, made once."""
    data = runs / f"{expert}_{n}_{seed}_{disturb:g}"
    with alone(data):
        return corrections.record(data, n, expert, seed=seed, disturb=disturb)


def train_on(trial: Trial, data: Path, out: Path, steps: int) -> TrainResult:
    """Train the trial's network."""
    settings = {"policy": "bc_mlp", "chunk_size": 1, "threads": 1} | trial.settings
    settings |= {"val_fraction": 0.0, "tensorboard": False, "seed": trial.seed}
    settings |= {"save_every": steps, "keep": 1}
    return train(
        TrainConfig(data=data, out=out, steps=steps, **settings), progress=False
    )


def train_dagger(trial: Trial, runs: Path, out: Path) -> TrainResult:
    """Half of the demonstrations given, half the policy's own, with corrected labels.

    The policies between the rounds train for a quarter of the steps each; the last one
    for as many as every other trial's.
    """
    half = trial.demonstrations // 2
    given = recorded(runs, trial.expert, half, trial.seed)
    data, corrector = out / "data", corrections.Corrector()
    world, total = World(TASK), half
    for i, path in enumerate(list_episodes(given)):
        if not episode_path(data, i).exists():
            save_episode(episode_path(data, i), load_episode(path))
    for i in range(ROUNDS):
        now = train_on(trial, data, out / f"round_{i}", max(1, trial.steps // 4)).policy

        def drive(tick: int, qpos: np.ndarray, now: Policy = now) -> np.ndarray:
            seen = {"qpos": TASK.state(qpos[None]), "env_state": qpos[None, 6:]}
            return now.predict_chunk(seen)[0, 0]

        for j in range((trial.demonstrations - half) // ROUNDS):
            total += 1
            if episode_path(data, total - 1).exists():
                continue
            # Scenes of demonstrations that nobody has given.
            scene = scene_seed(trial.seed, 10_000 + 100 * i + j)
            world.reset([scene])
            episode = corrections.play(
                world,
                scene,
                lambda tick, qpos: corrector(qpos),
                drive=drive,
                ticks=CORRECTED_TICKS,
            )
            save_episode(episode_path(data, total - 1), episode)
    return train_on(trial, data, out / "final", trial.steps)


def run_trial(trial: Trial, runs: Path) -> dict[str, Any]:
    """Record, train, roll out; or find what was done before."""
    out = runs / trial.name
    done, what = out / "row.json", json.loads(json.dumps(asdict(trial)))
    if done.exists():
        found = read_json(done)
        if found["trial"] == what:
            return found["row"]
    start = time.perf_counter()
    if trial.dagger:
        trained = train_dagger(trial, runs, out)
    else:
        data = demonstrations(trial, runs)
        trained = train_on(trial, data, out / "final", trial.steps)
    policy, ready = trained.policy, time.perf_counter()
    rollouts = roll_out(policy, trial, trial.n)
    row = trial.labels | {"seed": trial.seed, "execution": "half"} | summarise(rollouts)
    row |= {"train_seconds": round(trained.seconds, 1), "steps": trained.steps}
    row |= {"error_rad": held_out_error(policy, trial, runs)}
    row |= {"training_and_data_seconds": round(ready - start, 1)}
    row |= {"job_seconds": round(time.perf_counter() - start, 1)}
    print(trial.name, f"{100 * row['rate']:.0f} %", row["job_seconds"], "s", flush=True)
    write_json(done, {"trial": what, "row": row})
    return row


def run_trials(trials: Sequence[Trial], settings: Training) -> list[dict[str, Any]]:
    """The rows of all trials, some side by side."""
    tasks = [(trial, settings.runs) for trial in trials]
    return side_by_side(run_trial, tasks, settings.jobs)


def summarise(rollouts: list[Rollout]) -> dict[str, Any]:
    """What a row tells of its rollouts."""
    rate = Rate(sum(r.success for r in rollouts), len(rollouts))
    return rate.to_json() | {
        "jerk": float(np.mean([r.jerk for r in rollouts])),
        "frozen": float(np.mean([r.frozen for r in rollouts])),
    }


def held_out_error(policy: Policy, trial: Trial, runs: Path) -> dict[str, float]:
    """Mean error of the next action on the expert's own states, rad (arm's joints).

    `copying` is the error of who repeats the action before.
    """
    demos = Demonstrations.load(demonstrations(trial, runs, held_out=True))
    assert demos.env_state is not None
    seen = {"qpos": demos.qpos, "env_state": demos.env_state}
    said = policy.predict_chunk(seen)[:, 0]  # (M, A)
    error = np.abs(said - demos.action)[:, :5]
    inner = np.ones(len(error), bool)
    inner[demos.starts] = False
    copied = np.abs(np.diff(demos.action, axis=0))[:, :5][inner[1:]]
    return {"policy": float(error.mean()), "copying": float(copied.mean())}


def trained_policy(trial: Trial, runs: Path) -> Policy:
    """The policy of a trial that has run."""
    return load_policy(runs / trial.name / "final")
