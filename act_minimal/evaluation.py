"""How good is a policy? Many rollouts at once, success with an interval, film."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from .control import run
from .errors import UserError
from .execution import ExecutionConfig, make_executor
from .policy import Policy

if TYPE_CHECKING:
    from .sim.robot import SimRobot

SEEDS_A_RUN = 10_000
TOGETHER = 50  # scenes rolled out side by side
STILL = 0.02  # rad and gripper openings: slower than this in a tick is standing still


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
    """Root mean square third difference of the arm's joint positions, rad/s³, up to
    the end of each rollout."""
    frozen: float
    """Share of ticks in which no joint moved, before success."""
    chunk_ms: float
    """Mean time of one prediction for all scenes together, in ms."""
    seed: int
    scenes: list[int] = field(default_factory=list)
    succeeded: list[bool] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.rate:.0f} % ({self.successes}/{self.n}, "
            f"95 % interval {100 * low:.0f}-{100 * high:.0f})"
        )

    def to_json(self) -> dict:
        """Plain types only."""
        return asdict(self)


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
        threads: that step the scenes; 0 uses all CPUs.
    """
    scenes = evaluation_scenes(seed, n)
    start = time.perf_counter()
    tracks: list[np.ndarray] = []
    success: list[bool] = []
    chunk_seconds: list[float] = []
    bar = tqdm(total=n, desc="rollouts", disable=not progress)
    fps = 1.0
    for first in range(0, n, TOGETHER):
        group = scenes[first : first + TOGETHER]
        fps, rows, ok = _rollout(
            policy, task_name, execution, group, threads, chunk_seconds
        )
        tracks += rows
        success += ok
        bar.update(len(group))
    bar.close()
    low, high = wilson(sum(success), n)
    times = [len(t) / fps for t, ok in zip(tracks, success, strict=True) if ok]
    return Evaluation(
        successes=sum(success),
        n=n,
        rate=sum(success) / n,
        interval=(low, high),
        seconds_to_success=float(np.median(times)) if times else None,
        jerk=float(np.sqrt(np.mean([jerk(t[:, :-1], fps) ** 2 for t in tracks]))),
        frozen=float(np.mean(np.concatenate([still(t) for t in tracks]))),
        chunk_ms=1000 * float(np.mean(chunk_seconds)),
        seed=seed,
        scenes=scenes,
        succeeded=success,
        ticks=[len(t) for t in tracks],
        seconds=time.perf_counter() - start,
    )


def _rollout(
    policy: Policy,
    task_name: str,
    execution: ExecutionConfig | None,
    scenes: Sequence[int],
    threads: int,
    chunk_seconds: list[float],
) -> tuple[float, list[np.ndarray], list[bool]]:
    """Positions (T, S) of each scene up to its end, and whether it succeeded."""
    # The simulator is imported where it is used: a policy on a real arm needs none.
    from .sim import make_task
    from .sim.robot import SimRobot

    task = make_task(task_name)
    robot = SimRobot(task, scenes, threads=threads)
    running = _StillRunning(policy, robot, chunk_seconds)
    rows: list[list[np.ndarray]] = [[] for _ in scenes]

    def on_tick(tick: int, observation: dict, action: np.ndarray) -> bool:
        for i in robot.alive:
            rows[i].append(observation["qpos"][i].copy())
        return len(robot.alive) == 0

    robot.connect()
    try:
        executor = make_executor(execution or ExecutionConfig(), policy.chunk_size)
        run(robot, running, executor, task.max_ticks, on_tick=on_tick)
        return robot.fps, [np.stack(r) for r in rows], robot.world.success.tolist()
    finally:
        robot.close()


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


def jerk(positions: np.ndarray, fps: float) -> float:
    """Root mean square third difference of positions (T, S), per s³; 0 if T < 4."""
    if len(positions) < 4:
        return 0.0
    return float(np.sqrt(np.mean((np.diff(positions, 3, axis=0) * fps**3) ** 2)))


def still(positions: np.ndarray) -> np.ndarray:
    """(T - 1,) whether nothing moved from one tick to the next."""
    return (np.abs(np.diff(positions, axis=0)) < STILL / 10).all(1)
