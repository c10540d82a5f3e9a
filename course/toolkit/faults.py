"""Faults to switch on: one thing wrong with a run that works, each with its cure.

A fault is injected where it happens: into copies of the demonstrations, into the
settings of training, into the policy, or into the arm that it drives. Nothing tells the
doctor of it.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from act_minimal.backbones import IMAGENET_MEAN, IMAGENET_STD
from act_minimal.control import Observation
from act_minimal.dataset import Windows
from act_minimal.episodes import Episode
from act_minimal.execution import ExecutionConfig
from act_minimal.policy import Policy
from act_minimal.sim import PickPlace, Task
from act_minimal.sim.robot import SimRobot
from act_minimal.sim.so100.changed_scenes import Change, ChangedPickPlace
from act_minimal.sim.world import World

Base = Literal["state", "vision", "small_vision"]
CalibrationError = np.deg2rad(5)
TIMING = 10  # ticks
PAN, LIFT, ELBOW, WRIST, GRIPPER = 0, 1, 2, 3, 5


class FaultyRobot(SimRobot):
    """A simulated arm with something wrong between it and whoever drives it.

    Args:
        measured: joints (n, S) to what is reported of them.
        sent: actions (n, A) to what the arm is told.
        shifted: where the arm stands at the start, rad beside where it would (S,).
        late: ticks that observations are old.
        seen: an observation to what is reported of it.
    """

    def __init__(
        self,
        task: Task,
        scenes: Sequence[int],
        *,
        measured: Callable[[np.ndarray], np.ndarray] = lambda q: q,
        sent: Callable[[np.ndarray], np.ndarray] = lambda a: a,
        shifted: np.ndarray | None = None,
        late: int = 0,
        seen: Callable[[Observation], Observation] = lambda o: o,
        **settings: Any,
    ):
        super().__init__(task, scenes, **settings)
        self.measured, self.sent, self.shifted = measured, sent, shifted
        self.late, self.seen = late, seen
        self.past: list[Observation] = []

    def connect(self) -> None:
        super().connect()
        self.past.clear()
        if self.shifted is not None:
            self.world.qpos[:, : len(self.shifted)] += self.shifted

    def observe(self, cameras: Sequence[str] = ()) -> Observation:
        now = super().observe(cameras)
        now["qpos"] = self.measured(now["qpos"]).astype(np.float32)
        self.past.append(now)
        old = self.past[max(0, len(self.past) - 1 - self.late)]
        images = {key: x for key, x in now.items() if key.startswith("images/")}
        return self.seen({**old, **images})

    def act(self, action: np.ndarray) -> None:
        super().act(self.sent(action))


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and what names it."""

    name: str
    where: Literal["data", "training", "policy", "arm", "execution"]
    causes: tuple[str, ...]
    """Findings that name it."""
    base: Base = "state"
    cure: str = ""
    data: Callable[[list[Episode]], list[Episode]] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    policy: Callable[[Policy], Policy] | None = None
    arm: dict[str, Any] = field(default_factory=dict)
    """Settings of `FaultyRobot`."""
    task: Callable[[], Task] = PickPlace
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    std_floor: float | None = None

    @property
    def trains(self) -> bool:
        """Whether it needs a policy of its own."""
        return bool(self.data or self.settings or self.std_floor)

    def robot(
        self, scenes: Sequence[int], size: Any = (96, 128), threads: int = 0
    ) -> FaultyRobot:
        """The arm that has it."""
        more: dict[str, Any] = {"size": size, "threads": threads}
        return FaultyRobot(self.task(), scenes, **more, **self.arm)


# ---------------------------------------------------------------- the demonstrations


def truncated(episodes: list[Episode]) -> list[Episode]:
    """Every third one ends somewhere in its middle."""
    rng = np.random.default_rng(0)
    return [
        cut_short(e, int(len(e) * rng.uniform(0.35, 0.6))) if i % 3 == 0 else e
        for i, e in enumerate(episodes)
    ]


def cut_short(episode: Episode, end: int) -> Episode:
    """A copy of its first `end` ticks."""
    short = copy.copy(episode)
    for name in ("qpos", "qvel", "effort", "action", "env_state"):
        array = getattr(episode, name)
        setattr(short, name, None if array is None else array[:end])
    short.images = {c: x[:end] for c, x in episode.images.items()}
    short.attributes = dict(episode.attributes)
    return short


def late_gripper(episodes: list[Episode]) -> list[Episode]:
    """The gripper's commands are noted `TIMING` ticks after they were given."""
    for episode in episodes:
        told = episode.action[:, GRIPPER].copy()
        episode.action[TIMING:, GRIPPER] = told[:-TIMING]
        episode.action[:TIMING, GRIPPER] = told[0]
    return episodes


def few_scenes(episodes: list[Episode]) -> list[Episode]:
    """The first five, again and again, with the noise of a hand."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(len(episodes)):
        one = copy.deepcopy(episodes[i % 5])
        one.qpos += rng.normal(0, 0.001, one.qpos.shape).astype(np.float32)
        found.append(one)
    return found


def two_styles(episodes: list[Episode]) -> list[Episode]:
    """Half of the teachers look aside first, for three seconds, and come back."""
    return [aside(e) if i % 2 else e for i, e in enumerate(episodes)]


def aside(episode: Episode) -> Episode:
    """The demonstration by somebody who looks to the side first, for three seconds."""
    first = episode.action[0]
    away = (1 - np.cos(np.linspace(0, 2 * np.pi, 90))) / 2  # (90,) out and back
    turns = first + away[:, None] * np.eye(len(first))[PAN]
    return performed(episode, np.concatenate([turns, episode.action]))


def performed(
    episode: Episode, action: np.ndarray, moved: tuple[float, float] = (0.0, 0.0)
) -> Episode:
    """The demonstration's scene again, under other actions (T, A), as an episode.

    `moved` is how far the cube lies from where it lay, x and y in m.
    """
    task = PickPlace()
    world = World(task)
    world.reset([int(str(episode.attributes["scene"]))])
    world.qpos[0, 6:8] += moved
    action = action.astype(np.float32)
    rows: dict[str, list[np.ndarray]] = {}
    for a in action:
        for key, x in world.observe().items():
            rows.setdefault(key, []).append(x[0])
        world.step(a[None])
    arrays: Any = {key: np.array(x) for key, x in rows.items()}
    attributes = episode.attributes | {"success": bool(world.success[0])}
    return Episode(action=action, fps=task.fps, attributes=attributes, **arrays)


def useless_number(episodes: list[Episode]) -> list[Episode]:
    """The state has one more number, which never changes: the bin's distance, m."""
    rng = np.random.default_rng(0)
    for episode in episodes:
        assert episode.env_state is not None
        noise = rng.normal(0, 1e-5, (len(episode), 1)) + 0.2
        wide = np.concatenate([episode.env_state, noise], 1)
        episode.env_state = wide.astype(np.float32)
    return episodes


def bin_elsewhere(seen: Observation) -> Observation:
    """The same number, of a bin that is 1 cm farther away."""
    n = len(seen["env_state"])
    wide = np.concatenate([seen["env_state"], np.full((n, 1), 0.21)], 1)
    return seen | {"env_state": wide.astype(np.float32)}


# ---------------------------------------------------------------- the policy


def asked(policy: Policy, alter: Callable[[Observation], Observation]) -> Policy:
    """A policy whose observations are altered before it sees them."""
    faulty = copy.deepcopy(policy)
    answer = faulty.predict_chunk

    def predict_chunk(seen: Any, *prefix: Any) -> np.ndarray:
        return answer(alter(dict(seen)), *prefix)

    faulty.predict_chunk = predict_chunk  # type: ignore[method-assign]
    return faulty


def one_answer(policy: Policy) -> Policy:
    """A policy that gives the answer to its first observation again and again."""
    faulty = copy.deepcopy(policy)
    answer, kept = faulty.predict_chunk, list[np.ndarray]()

    def predict_chunk(seen: Any, *prefix: Any) -> np.ndarray:
        if not kept:
            kept.append(answer(seen, *prefix)[:1])
        return np.repeat(kept[0], len(seen["qpos"]), 0)

    faulty.predict_chunk = predict_chunk  # type: ignore[method-assign]
    return faulty


class _Drawn(nn.Module):
    """Where the latent enters: with noise that training alone should have."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.random = torch.Generator().manual_seed(0)

    def forward(self, z: Tensor) -> Tensor:
        return self.inner(z + torch.randn(z.shape, generator=self.random))


def draws_z(policy: Policy) -> Policy:
    """A policy whose z is drawn at run time."""
    faulty = copy.deepcopy(policy)
    faulty.module.latent_proj = _Drawn(faulty.module.latent_proj)
    return faulty


def normalised_otherwise(
    cameras: Sequence[str], mean: float | None, std: float | None
) -> Callable[[Observation], Observation]:
    """Images that come out of the network's normalisation as with these numbers.

    None: they were not normalised at all, only brought to 0 to 1.
    """
    m, s = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)

    def alter(seen: Observation) -> Observation:
        for camera in cameras:
            x = seen[f"images/{camera}"] / 255.0
            wanted = x if mean is None or std is None else (x - mean) / std
            image = np.clip(255 * (wanted * s + m), 0, 255)
            seen = seen | {f"images/{camera}": image.astype(np.uint8)}
        return seen

    return alter


# ---------------------------------------------------------------- the arm


def exchanged(seen: Observation) -> Observation:
    """Two cameras plugged in the wrong way round."""
    one, other = "images/top", "images/wrist"
    if one not in seen:
        return seen
    return seen | {one: seen[other], other: seen[one]}


def other_day(seen: Observation) -> Observation:
    """Both cameras were taken off and put back: 8 pixels beside, a little warmer."""
    for key in [k for k in seen if k.startswith("images/")]:
        moved = np.roll(seen[key], (4, 8), (1, 2)).astype(float)
        seen = seen | {key: np.clip(moved * (1.05, 1, 0.92), 0, 255).astype(np.uint8)}
    return seen


class _Faster(PickPlace):
    """Three ticks in the time of one."""

    substeps = PickPlace.substeps // 3

    def model(self) -> Any:
        spec = self.spec()
        spec.option.timestep = 1.0 / (self.fps * PickPlace.substeps)
        return spec.compile()


def _signed(q: np.ndarray) -> np.ndarray:
    q = q.copy()
    q[:, PAN] *= -1
    return q


def _ordered(q: np.ndarray) -> np.ndarray:
    q = q.copy()
    q[:, [ELBOW, WRIST]] = q[:, [WRIST, ELBOW]]
    return q


def _degrees(q: np.ndarray) -> np.ndarray:
    q = q.copy()
    q[:, :GRIPPER] = np.rad2deg(q[:, :GRIPPER])
    return q


def _radians(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a[:, :GRIPPER] = np.deg2rad(a[:, :GRIPPER])
    return a


_off = np.eye(6)[LIFT] * CalibrationError

FAULTS = (
    Fault(
        "joint order",
        "arm",
        ("joint_order",),
        arm={"measured": _ordered, "sent": _ordered},
        cure="the driver's order",
    ),
    Fault(
        "sign",
        "arm",
        ("joint_sign",),
        arm={"measured": _signed, "sent": _signed},
        cure="the driver's sign",
    ),
    Fault(
        "units",
        "arm",
        ("units",),
        arm={"measured": _degrees, "sent": _radians},
        cure="radians",
    ),
    Fault(
        "camera swapped",
        "arm",
        ("camera_swap",),
        "vision",
        arm={"seen": exchanged},
        cure="cameras exchanged again",
    ),
    Fault(
        "camera key missing in normalisation",
        "policy",
        ("image_input",),
        "vision",
        policy=lambda p: asked(p, normalised_otherwise(["wrist"], None, None)),
        cure="normalised as in training",
    ),
    Fault(
        "wrong image statistics",
        "policy",
        ("image_input",),
        "vision",
        policy=lambda p: asked(p, normalised_otherwise(["top", "wrist"], 0.0, 0.5)),
        cure="normalised as in training",
    ),
    Fault(
        "deviation without a floor",
        "training",
        ("std_floor",),
        data=useless_number,
        std_floor=1e-6,
        arm={"seen": bin_elsewhere},
        cure="trained with the floor",
    ),
    Fault(
        "backbone rate x 100",
        "training",
        ("learning_rate",),
        "small_vision",
        settings={"backbone_lr": 0.1},
        cure="trained with one rate",
    ),
    Fault(
        "KL weight small, z drawn",
        "policy",
        ("z_drawn",),
        settings={"model": {"kl_weight": 0.01, "cvae_actions_per_token": 10}},
        policy=draws_z,
        cure="z = 0",
    ),
    Fault(
        "KL weight 0",
        "training",
        ("leans_on_z",),
        settings={"model": {"kl_weight": 0.0, "cvae_actions_per_token": 10}},
        cure="trained with a weight of 1",
    ),
    Fault("rate x 3", "arm", ("rate",), task=_Faster, cure="30 Hz"),
    Fault(
        "ensembling reversed",
        "execution",
        ("ensemble_weights",),
        execution=ExecutionConfig("ensemble", m=0.3, order="newest_first"),
        cure="m = 0.01 from the oldest",
    ),
    Fault(
        "constant output",
        "policy",
        ("constant_output",),
        policy=one_answer,
        cure="asked anew each time",
    ),
    Fault(
        "calibration off by 5 degrees",
        "arm",
        ("calibration",),
        arm={
            "measured": lambda q: q + _off,
            "sent": lambda a: a - _off,
            "shifted": -_off,
        },
        cure="calibrated again",
    ),
    Fault(
        "chunk as long as the episode",
        "training",
        ("chunk_length",),
        settings={"chunk_size": 180},
        execution=ExecutionConfig("open_loop"),
        cure="chunks of 50",
    ),
    Fault(
        "light halved",
        "arm",
        ("light",),
        "vision",
        task=lambda: ChangedPickPlace(Change(light=(0.5, 0.5, 0.5))),
        cure="the light of the demonstrations",
    ),
    Fault(
        "few scenes",
        "data",
        ("few_scenes", "memorised"),
        data=few_scenes,
        cure="50 scenes",
    ),
    Fault(
        "truncated episodes, a third",
        "data",
        ("failed_episodes",),
        data=truncated,
        cure="trained without them",
    ),
    Fault(
        "two styles",
        "data",
        ("two_styles",),
        data=two_styles,
        cure="one style",
    ),
    Fault(
        "gripper timing",
        "data",
        ("joint_timing",),
        data=late_gripper,
        cure="commands noted when they are given",
    ),
    Fault(
        "late observation, 3 ticks",
        "arm",
        ("late_observation",),
        arm={"late": 3},
        cure="newest observation",
    ),
    Fault(
        "too few updates",
        "training",
        ("too_few_updates",),
        settings={"steps": 150},
        cure="3000 updates",
    ),
    Fault(
        "cameras of another day",
        "arm",
        ("camera_moved",),
        "vision",
        arm={"seen": other_day},
        cure="cameras where they were",
    ),
)


def without_floor(floor: float) -> Callable[..., Any]:
    """`Windows.statistics` with another floor, to be put in its place."""
    usual = Windows.statistics

    def statistics(self: Windows, std_floor: float = floor, **more: Any) -> Any:
        return usual(self, floor, **more)

    return statistics


def find_fault(name: str) -> Fault:
    """The one of this name."""
    return next(fault for fault in FAULTS if fault.name == name)
