"""How good is a policy? Many rollouts at once, success with an interval, film."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm.auto import tqdm

from .checkpoint import find_checkpoint, read_card
from .control import Observation, run
from .datasets.embodiment import check_card, joint_names
from .execution import ExecutionConfig
from .policy import Policy
from .realtime import (
    InTicks,
    LateExecutor,
    Switch,
    check_mode,
    draws,
    make_late_executor,
)
from .settings import NetworkConfig
from .support.errors import SettingError, UserError
from .support.files import check_output_folder, write_bytes
from .support.validation import Bounds, TaskName, Whole, check_value

if TYPE_CHECKING:
    from .sim.robot import SimRobot
    from .sim.world import Task

SEEDS_A_RUN = 10_000  # scenes of one seed; demonstrations start far beyond all of them
SEEDS = 100_000
TOGETHER = 50  # scenes rolled out side by side
NEAR_SEAM = 3  # ticks
LATENESS = ("delay", "spread")  # what kept rollouts say of late predictions
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
class Rate:
    """A success rate: successes of n attempts."""

    successes: int
    n: int

    @property
    def rate(self) -> float:
        """As a share, not percent."""
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `rate`."""
        return wilson(self.successes, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.rate:.0f} % ({self.successes}/{self.n}, "
            f"95 % interval {100 * low:.0f}-{100 * high:.0f} %)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "successes": self.successes,
            "n": self.n,
            "rate": self.rate,
            "interval": list(self.interval),
        }


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
class Evaluation(Rate):
    """What rollouts on `n` scenes showed."""

    seconds_to_success: float | None
    """Median over the successful rollouts; None without any."""
    jerk: float
    """Mean over rollouts of `Rollout.jerk`."""
    frozen: float
    """Mean over rollouts of `Rollout.frozen`."""
    chunk_ms: float
    """Mean time of one prediction for all running scenes together."""
    seed: int
    seconds: float
    """Wall-clock time of the rollouts, those of a call that was stopped included."""
    rollouts: list[Rollout] = field(repr=False, default_factory=list)
    late: dict[str, float] = field(default_factory=dict)
    """Where chunks came late: mean `seam`, rad; acceleration of the joints, root mean
    square in rad/s², within `NEAR_SEAM` ticks of a seam (`near`) and elsewhere
    (`apart`); mean `age`, in ticks, of the observation behind an action; `holds`, ticks
    of a rollout without an action; `dropped`, chunks of a rollout that came too late or
    were no numbers, if there were any."""

    def to_json(self) -> dict[str, Any]:
        """Plain types only; of the rollouts, which scenes failed."""
        left_out = {"rollouts"} | (set() if self.late else {"late"})
        fields = {k: v for k, v in vars(self).items() if k not in left_out}
        failed = [r.scene for r in self.rollouts if not r.success]
        return super().to_json() | fields | {"failed_scenes": failed}


def evaluation_scenes(seed: int, n: int) -> list[int]:
    """Scene numbers of evaluation `seed`; no demonstration starts from any of them."""
    if not 0 < n <= SEEDS_A_RUN:
        raise SettingError(f"n is {n}, expected from 1 to {SEEDS_A_RUN} rollouts")
    if not 0 <= seed < SEEDS:
        raise SettingError(f"seed is {seed}, expected from 0 to {SEEDS - 1}")
    return list(range(SEEDS_A_RUN * seed, SEEDS_A_RUN * seed + n))


def evaluate(
    policy: Policy,
    task: "str | Task" = "so100_pick_place",
    execution: ExecutionConfig | None = None,
    *,
    n: int = 100,
    seed: int = 0,
    out: Path | None = None,
    delay: int = 0,
    spread: float = 1.0,
    threads: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Roll a policy out on `n` scenes that no demonstration started from.

    Args:
        task: a simulated task, or its name. A changed task needs a name of its own:
            rollouts in `out` are known again by it.
        execution: how chunks become actions; by default half of each chunk is executed.
        seed: decides the scenes.
        out: folder that keeps the rollouts; those of an evaluation that was killed are
            found again there.
        delay: ticks that a prediction takes, as a median if they vary.
        spread: of the delays, their 99th percentile over their median.
        threads: that step the scenes; 0 uses all CPUs.

    Raises:
        SettingError: `execution` does not suit the policy's chunks, or n or seed are
            out of range.
        UserError: the policy does not fit the task, or `out` holds rollouts of another
            policy or with other settings.
    """
    # The simulator is imported where it is used: a policy on a real arm needs none.
    from .sim import make_task

    check_value("delay", delay, Whole)
    check_value("spread", spread, Annotated[float, Bounds(1)])
    execution = execution or ExecutionConfig()
    make_late_executor(execution, policy.chunk_size, delay)
    check_mode(policy, execution, delay, spread)
    if isinstance(task, str):
        task = make_task(task)
    check_fit(policy, task)
    scenes = evaluation_scenes(seed, n)
    if out:
        check_output_folder(out, "rollouts")
    about = {
        "policy": fingerprint(policy),
        "task": task.name,
        "execution": json.dumps(execution.to_json()),
    }
    if delay:
        about |= dict(zip(LATENESS, map(str, (delay, spread)), strict=True))
    for path in sorted(out.glob("rollouts_*.safetensors")) if out else ():
        with _opened(path) as file:
            _check_same(path, file.metadata() or {}, about)
    rollouts: list[Rollout] = []
    seconds, chunk_seconds, late = 0.0, list[float](), Lateness()
    with tqdm(total=n, desc="rollouts", disable=not progress) as bar:
        # Scenes side by side have one clock: drawn delays are those of all of them.
        together = TOGETHER if spread == 1 else TOGETHER // 5
        for first in range(0, n, together):
            group = scenes[first : first + together]
            path = out / f"rollouts_{group[0]}_{group[-1]}.safetensors" if out else None
            if path and path.exists():
                found, times, sums = _load_rollouts(path)
            else:
                found, times, sums = _roll_out(
                    policy, task, execution, group, threads, (delay, spread)
                )
                if path:
                    _save_rollouts(path, found, times, about, sums)
            late.add(sums)
            rollouts += found
            seconds += times[0]
            chunk_seconds += times[1:]
            bar.update(len(group))
            bar.set_postfix_str(f"{sum(r.success for r in rollouts)} succeeded")
    took = [r.ticks / task.fps for r in rollouts if r.success]
    return Evaluation(
        successes=sum(r.success for r in rollouts),
        n=n,
        seconds_to_success=float(np.median(took)) if took else None,
        jerk=float(np.mean([r.jerk for r in rollouts])),
        frozen=float(np.mean([r.frozen for r in rollouts])),
        chunk_ms=1000 * float(np.mean(chunk_seconds)),
        seed=seed,
        seconds=seconds,
        rollouts=rollouts,
        late=late.means(n) if delay else {},
    )


class Lateness:
    """Sums over rollouts of what `Evaluation.late` has the means of."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, sums: Mapping[str, Sequence[float]]) -> None:
        """More sums and counts."""
        for name, (total, count) in sums.items():
            before = self.sums.get(name, [0.0, 0.0])
            self.sums[name] = [before[0] + total, before[1] + count]

    def means(self, n: int) -> dict[str, float]:
        """Means, and roots of mean squares; holds of a rollout."""
        found = {"holds": self.sums["holds"][0] / n}
        if dropped := self.sums.get("dropped", [0.0])[0]:
            found["dropped"] = dropped / n
        for name in ("seam", "age", "near", "apart"):
            total, count = self.sums.get(name, (0.0, 0.0))
            if count:
                mean = total / count
                found[name] = math.sqrt(mean) if name in ("near", "apart") else mean
        return found


def late_text(late: Mapping[str, float]) -> str:
    """A line about `Evaluation.late`, or nothing."""
    if not late:
        return ""
    said = f"\nticks without an action {late['holds']:.1f} a rollout"
    words = {
        "seam": "seams of {:.3f} rad",
        "near": "acceleration near them {:.1f} rad/s²",
        "apart": "elsewhere {:.1f} rad/s²",
        "age": "observations {:.1f} ticks old",
    }
    return "; ".join(
        [said, *(word.format(late[key]) for key, word in words.items() if key in late)]
    )


def late_sums(
    executor: LateExecutor,
    arms: Sequence[np.ndarray],
    fps: float,
    angles: Sequence[bool] | np.ndarray,
) -> dict[str, list[float]]:
    """What `Lateness` adds up, of rollouts side by side.

    Args:
        arms: (T, S) joints of each, until it was over.
        angles: which of the joints are angles: a gripper's opening is none.
    """
    late = Lateness()
    for end in map(len, arms):
        holds = sum(tick < end for tick in executor.hold_ticks)
        late.add({"holds": [float(holds), 0.0]})
    if not isinstance(executor, Switch):
        return late.sums
    late.add({"dropped": [float(executor.dropped * len(arms)), 0.0]})
    seam_ticks, angles = np.array(executor.seam_ticks, int), np.array(angles, bool)
    for i, arm in enumerate(arms):
        met = seam_ticks < len(arm)
        jumps = [seam[i, angles].max() for seam in executor.seams]
        late.add({"seam": [float(np.array(jumps)[met].sum()), float(met.sum())]})
        ages = [age for age in executor.ages[: len(arm)] if age is not None]
        late.add({"age": [float(sum(ages)), float(len(ages))]})
        second = np.diff(arm[:, angles], 2, axis=0) * fps**2  # (T - 2, S)
        ticks = np.arange(1, len(second) + 1)  # the middle one of three
        near = (np.abs(ticks[:, None] - seam_ticks) <= NEAR_SEAM).any(1)
        for name, some in (("near", second[near]), ("apart", second[~near])):
            squares = some.astype(float) ** 2
            late.add({name: [float(squares.sum()), float(squares.size)]})
    return late.sums


def check_fit(policy: Policy, task: "Task") -> None:
    """UserError, which names what differs, if a policy cannot drive a task's arm."""
    if unknown := [c for c in policy.cameras if c not in task.cameras]:
        raise UserError(
            f"the policy looks through camera '{unknown[0]}', but {task.name} has "
            f"the cameras {', '.join(task.cameras)}"
        )
    numbers = {
        "state_dim": ("joints", len(task.joints)),
        "action_dim": ("actions", task.action_dim),
        "env_state_dim": ("numbers of env_state", task.env_state_dim),
    }
    for key, (what, there) in numbers.items():
        wanted = getattr(policy.config, key)
        if wanted != there and (key != "env_state_dim" or wanted):
            raise UserError(
                f"the policy was trained with {wanted} {what}, but {task.name} has "
                f"{there}"
            )
    joints = joint_names(task.robot, task.action_dim) or task.joints
    check_card(getattr(policy, "card", {}), task.fps, task.robot, joints)


def eval_command(folder: Path, more: str = "") -> str:
    """The command that rolls a checkpoint out, in its card's task if that is ours."""
    task = read_card(find_checkpoint(folder)).get("task")
    _, *others = get_args(TaskName)  # the first one is the default
    where = f" --task {task}" if task in others else ""
    return f"act eval --policy {folder}{where}{more}"


def fingerprint(policy: Policy) -> str:
    """A short hash of a policy's settings and weights, to know it again."""
    # Those of the policies that it is made of, too.
    parts = policy.modules() if hasattr(policy, "modules") else [policy]
    settings: list[Any] = [getattr(policy, "name", type(policy).__name__)]
    for part in parts:
        config = getattr(part, "config", None)
        if is_dataclass(config) and not isinstance(config, type):
            ours = isinstance(config, NetworkConfig)
            chosen = config.to_json() if ours else asdict(config)
            about = [getattr(part, key, None) for key in ("name", "action_target")]
            resizing = getattr(part, "resizing", None)
            settings += [*about, resizing and resizing.to_json(), chosen]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    weights = policy.state_dict() if hasattr(policy, "state_dict") else {}
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def jerk(positions: np.ndarray, fps: float) -> float:
    """Root mean square third difference of positions (T, S), per s³; 0 if T < 4."""
    if len(positions) < 4:
        return 0.0
    return float(np.sqrt(np.mean((np.diff(positions, 3, axis=0) * fps**3) ** 2)))


def still(positions: np.ndarray) -> np.ndarray:
    """(T - 1,) whether no joint moved more than `STILL` from one tick to the next."""
    moved = np.abs(np.diff(positions, axis=0)).max(axis=1)  # (T - 1,)
    return np.asarray(moved < STILL)


def _roll_out(
    policy: Policy,
    task: "Task",
    execution: ExecutionConfig,
    scenes: Sequence[int],
    threads: int,
    delay: tuple[int, float],
) -> tuple[list[Rollout], list[float], dict[str, list[float]]]:
    """Roll out some scenes side by side.

    Returns:
        The rollouts; seconds in all and of each chunk; the sums of `Lateness`.
    """
    from .sim.robot import SimRobot

    start = time.perf_counter()
    robot = SimRobot(task, scenes, size=policy.image_sizes, threads=threads)
    running = _StillRunning(policy, robot, scenes)
    states: list[list[np.ndarray]] = [[] for _ in scenes]
    arms: list[list[np.ndarray]] = [[] for _ in scenes]

    def on_tick(tick: int, observation: Observation, action: np.ndarray) -> bool:
        for i in robot.alive:
            states[i].append(robot.world.qpos[i].astype(np.float32))
            arms[i].append(observation["qpos"][i])
        return len(robot.alive) == 0

    robot.connect()
    try:
        executor = make_late_executor(execution, policy.chunk_size, delay[0])
        inference = InTicks(running, draws(*delay, scenes[0]), delay[0])
        run(
            robot,
            running,
            executor,
            task.max_ticks,
            inference=inference,
            on_tick=on_tick,
        )
    finally:
        robot.close()
    rollouts = []
    angles = [not name.endswith("gripper") for name in task.joints]
    for i, scene in enumerate(scenes):
        arm = np.stack(arms[i])
        rollouts.append(
            Rollout(
                scene=scene,
                success=bool(robot.world.success[i]),
                ticks=len(arm),
                jerk=jerk(arm[:, angles], robot.fps),
                frozen=float(still(arm).mean()),
                qpos=np.stack(states[i]),
            )
        )
    joints = [np.stack(arm) for arm in arms]
    sums = late_sums(executor, joints, robot.fps, angles) if delay[0] else {}
    return rollouts, [time.perf_counter() - start, *running.seconds], sums


def _save_rollouts(
    path: Path,
    rollouts: list[Rollout],
    times: list[float],
    about: dict[str, str],
    late: dict[str, list[float]],
) -> None:
    rows = [{k: v for k, v in vars(r).items() if k != "qpos"} for r in rollouts]
    content = save(
        {str(r.scene): r.qpos for r in rollouts},
        metadata=about
        | {"rollouts": json.dumps(rows), "times": json.dumps(times)}
        | ({"late": json.dumps(late)} if late else {}),
    )
    write_bytes(path, content)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of rollouts; UserError if it is damaged."""
    try:
        with safe_open(path, "np") as file:
            yield file
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it, and its rollouts are made again"
        ) from error


def _check_same(path: Path, found: dict[str, str], about: dict[str, str]) -> None:
    """UserError if kept rollouts are of another policy, or have other settings."""
    for key in (*about, *LATENESS):
        value = about.get(key)
        if found.get(key) != value:
            earlier = (
                " (earlier versions did not note a policy's settings, so their "
                "rollouts cannot be told from another policy's)"
            )
            raise UserError(
                f"{path} holds rollouts with {key} {found.get(key)}, but this "
                f"evaluation has {value}{earlier if key == 'policy' else ''}; "
                "choose another folder"
            )


def _load_rollouts(
    path: Path,
) -> tuple[list[Rollout], list[float], dict[str, list[float]]]:
    with _opened(path) as file:
        found = file.metadata() or {}
        rows = json.loads(found["rollouts"])
        states = [file.get_tensor(str(row["scene"])) for row in rows]
    rollouts = [Rollout(**r, qpos=q) for r, q in zip(rows, states, strict=True)]
    return rollouts, json.loads(found["times"]), json.loads(found.get("late", "{}"))


class _StillRunning:
    """A policy that is asked only about the scenes that are not over, and timed."""

    def __init__(self, policy: Policy, robot: "SimRobot", scenes: Sequence[int]):
        self.policy, self.robot = policy, robot
        # Of a policy that samples: each scene's noise is its own, whoever runs beside.
        sampled = scenes if getattr(policy, "samples", False) else ()
        self.noise = [np.random.default_rng([scene, 6]) for scene in sampled]
        self.cameras = policy.cameras
        self.told_max = getattr(policy, "told_max", 0)
        self.correct = getattr(policy, "correct", None)
        self.seconds: list[float] = []

    def predict_chunk(
        self, observation: dict[str, np.ndarray], prefix: np.ndarray | None = None
    ) -> np.ndarray:
        start = time.perf_counter()
        alive = self.robot.alive
        seen = {k: v[alive] for k, v in observation.items()}
        if self.noise:
            shape = self.policy.chunk_size, self.robot.action_dim
            drawn = [self.noise[i].standard_normal(shape) for i in alive]
            seen["noise"] = np.array(drawn, np.float32)  # (n, k, A)
        if prefix is None:
            some = self.policy.predict_chunk(seen)
        else:
            some = self.policy.predict_chunk(seen, prefix[alive])
        chunk = np.zeros((self.robot.n, *some.shape[1:]), some.dtype)  # (n, k, A)
        chunk[alive] = some
        self.seconds.append(time.perf_counter() - start)
        return chunk
