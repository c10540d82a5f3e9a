"""How good is a policy? Many rollouts at once, success with an interval, film."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save
from tqdm.auto import tqdm

from .control import Observation, run
from .errors import UserError
from .execution import ExecutionConfig, make_executor
from .files import atomic_file
from .policy import Policy

if TYPE_CHECKING:
    from .sim.robot import SimRobot

SEEDS_A_RUN = 10_000
TOGETHER = 50  # scenes rolled out side by side
STILL = 0.002  # rad, and gripper openings: less than this in a tick is standing still


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a success rate, 95 % by default.

    Unlike the textbook interval it stays inside [0, 1] and says something at 0 and n
    successes (E. B. Wilson, JASA 1927).

    Raises:
        ValueError: not 0 <= successes <= n, or n = 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the two terms cancel exactly on paper, not in floating point.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


@dataclass
class Rollout:
    """One rollout: what happened in one scene."""

    scene: int
    success: bool
    ticks: int
    jerk: float
    """Root mean square third difference of the arm's joint positions, rad/s³."""
    frozen: float
    """Share of ticks in which no joint moved."""
    qpos: np.ndarray = field(repr=False, compare=False)
    """(T, nq) float32, the simulator's positions at each tick: enough for a film."""


@dataclass
class Evaluation:
    """What rollouts on `n` scenes showed. Rates are shares, not percent."""

    successes: int
    n: int
    rate: float
    interval: tuple[float, float]
    """95 % Wilson interval of `rate`."""
    seconds_to_success: float | None
    """Median over the successful rollouts; None without any."""
    jerk: float
    """Mean over rollouts of `Rollout.jerk`."""
    frozen: float
    """Mean over rollouts of `Rollout.frozen`."""
    chunk_ms: float | None
    """Mean time of one prediction for all running scenes together."""
    seed: int
    seconds: float
    """Wall-clock time of the rollouts made by this call."""
    rollouts: list[Rollout] = field(repr=False, default_factory=list)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.rate:.0f} % ({self.successes}/{self.n}, "
            f"95 % interval {100 * low:.0f}-{100 * high:.0f} %)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types only; of the rollouts, which scenes failed."""
        fields = {k: v for k, v in vars(self).items() if k != "rollouts"}
        failed = [r.scene for r in self.rollouts if not r.success]
        return fields | {"interval": list(self.interval), "failed_scenes": failed}


def evaluation_scenes(seed: int, n: int) -> list[int]:
    """Scene numbers of evaluation `seed`; no demonstration starts from any of them.

    Raises:
        UserError: more scenes than a seed has.
    """
    if not 0 < n <= SEEDS_A_RUN:
        raise UserError(f"n is {n}; between 1 and {SEEDS_A_RUN} rollouts are possible")
    return list(range(SEEDS_A_RUN * seed, SEEDS_A_RUN * seed + n))


def evaluate(
    policy: Policy,
    task_name: str = "so100_pick_place",
    execution: ExecutionConfig | None = None,
    *,
    n: int = 100,
    seed: int = 0,
    out: Path | None = None,
    threads: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Roll a policy out on `n` scenes that no demonstration started from.

    Args:
        policy: the policy.
        task_name: a simulated task.
        execution: how chunks become actions; by default half of each chunk is executed.
        n: number of rollouts.
        seed: decides the scenes.
        out: folder that keeps the rollouts; those of an evaluation that was killed are
            found again there.
        threads: that step the scenes; 0 uses all CPUs.

    Raises:
        UserError: `out` holds rollouts of another policy or with other settings.
    """
    execution = execution or ExecutionConfig()
    scenes = evaluation_scenes(seed, n)
    about = {
        "policy": fingerprint(policy),
        "task": task_name,
        "execution": json.dumps(asdict(execution)),
    }
    start = time.perf_counter()
    rollouts: list[Rollout] = []
    chunk_seconds: list[float] = []
    with tqdm(total=n, desc="rollouts", disable=not progress) as bar:
        for first in range(0, n, TOGETHER):
            group = scenes[first : first + TOGETHER]
            path = out / f"rollouts_{group[0]}_{group[-1]}.safetensors" if out else None
            if path and path.exists():
                found = _load_rollouts(path, about)
            else:
                found = _roll_out(
                    policy, task_name, execution, group, threads, chunk_seconds
                )
                if path:
                    _save_rollouts(path, found, about)
            rollouts += found
            bar.update(len(group))
            bar.set_postfix_str(f"{sum(r.success for r in rollouts)} succeeded")
    fps = _fps(task_name)
    successes = sum(r.success for r in rollouts)
    times = [r.ticks / fps for r in rollouts if r.success]
    return Evaluation(
        successes=successes,
        n=n,
        rate=successes / n,
        interval=wilson(successes, n),
        seconds_to_success=float(np.median(times)) if times else None,
        jerk=float(np.mean([r.jerk for r in rollouts])),
        frozen=float(np.mean([r.frozen for r in rollouts])),
        chunk_ms=1000 * float(np.mean(chunk_seconds)) if chunk_seconds else None,
        seed=seed,
        seconds=time.perf_counter() - start,
        rollouts=rollouts,
    )


def fingerprint(policy: Policy) -> str:
    """A short hash of a policy's weights, to know it again."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def jerk(positions: np.ndarray, fps: float) -> float:
    """Root mean square third difference of positions (T, S), per s³; 0 if T < 4."""
    if len(positions) < 4:
        return 0.0
    return float(np.sqrt(np.mean((np.diff(positions, 3, axis=0) * fps**3) ** 2)))


def still(positions: np.ndarray) -> np.ndarray:
    """(T - 1,) whether no joint moved more than `STILL` from one tick to the next."""
    return (np.abs(np.diff(positions, axis=0)) < STILL).all(1)


def _fps(task_name: str) -> float:
    # The simulator is imported where it is used: a policy on a real arm needs none.
    from .sim import make_task

    return float(make_task(task_name).fps)


def _roll_out(
    policy: Policy,
    task_name: str,
    execution: ExecutionConfig,
    scenes: Sequence[int],
    threads: int,
    chunk_seconds: list[float],
) -> list[Rollout]:
    """Roll out some scenes side by side."""
    from .sim import make_task
    from .sim.robot import SimRobot

    task = make_task(task_name)
    robot = SimRobot(task, scenes, threads=threads)
    running = _StillRunning(policy, robot, chunk_seconds)
    states: list[list[np.ndarray]] = [[] for _ in scenes]
    arms: list[list[np.ndarray]] = [[] for _ in scenes]

    def on_tick(tick: int, observation: Observation, action: np.ndarray) -> bool:
        for i in robot.alive:
            states[i].append(robot.world.qpos[i].astype(np.float32))
            arms[i].append(observation["qpos"][i])
        return len(robot.alive) == 0

    robot.connect()
    try:
        executor = make_executor(execution, policy.chunk_size)
        run(robot, running, executor, task.max_ticks, on_tick=on_tick)
    finally:
        robot.close()
    rollouts = []
    for i, scene in enumerate(scenes):
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
    return rollouts


def _save_rollouts(path: Path, rollouts: list[Rollout], about: dict[str, str]) -> None:
    rows = [{k: v for k, v in vars(r).items() if k != "qpos"} for r in rollouts]
    content = save(
        {str(r.scene): r.qpos for r in rollouts},
        metadata=about | {"rollouts": json.dumps(rows)},
    )
    with atomic_file(path, UserError) as temporary:
        temporary.write_bytes(content)


def _load_rollouts(path: Path, about: dict[str, str]) -> list[Rollout]:
    with safe_open(path, "np") as file:
        found = file.metadata()
        for key, value in about.items():
            if found.get(key) != value:
                raise UserError(
                    f"{path} holds rollouts with {key} {found.get(key)}, but this "
                    f"evaluation has {value}; choose another folder"
                )
        rows = json.loads(found["rollouts"])
        return [Rollout(**r, qpos=file.get_tensor(str(r["scene"]))) for r in rows]


class _StillRunning:
    """A policy that is asked only about the scenes that are not over, and timed."""

    def __init__(self, policy: Policy, robot: "SimRobot", seconds: list[float]):
        self.policy, self.robot, self.seconds = policy, robot, seconds
        self.cameras = policy.cameras

    def predict_chunk(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        start = time.perf_counter()
        alive = self.robot.alive
        some = self.policy.predict_chunk({k: v[alive] for k, v in observation.items()})
        chunk = np.zeros((self.robot.n, *some.shape[1:]), some.dtype)  # (n, k, A)
        chunk[alive] = some
        self.seconds.append(time.perf_counter() - start)
        return chunk
