"""Lesson 07: code that drives an arm, with nine faults, and the run that shows them.

The run has a robot whose time is moved by hand and a policy of random chunks. What
reaches the policy, and what reaches the robot, is compared with what the definition
gives under every combination of the planted faults. Code that is right is then tried
with another arm at another rate.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import numpy as np

from ..toolkit.checks import ASYNC, NotAttempted, Wrong, each_case, exercise
from ..toolkit.paths import ROOT
from ..toolkit.stubs import split_exercise


@dataclass(frozen=True)
class Setting:
    """What a run is made with."""

    k: int  # chunk size
    ticks: int  # of an episode
    m: float  # decay of the ensemble
    fps: int
    joints: tuple[str, ...]
    cameras: tuple[str, ...]
    work: tuple[float, float] = (0.008, 0.014)  # s, least and most of a prediction
    brightest: int = 255  # pixel of a picture
    turned: bool = False  # does the robot list its joints and cameras from the end?


ARM = "pan", "lift", "elbow", "wrist", "roll", "gripper"
LESSON = Setting(4, 12, 0.3, 30, ARM, ("top", "wrist"))
OTHER = Setting(
    *(6, 15, 0.1, 50, ("base", *ARM), ("wrist", "top", "side")),
    work=(0.001, 0.004),
    brightest=200,
    turned=True,
)
OFF = 0.05  # share by which the rate may differ from that of the demonstrations

# What a run shows of each fault; the first three on the way to the policy.
SEEN = {
    "order": "when one joint moves, the policy is told that another one did",
    "scale": "at the mean of the demonstrations' poses the policy is not given zeros",
    "pixels": "a white pixel reaches the policy as 255; in training it was 1",
}
SENT = {
    "clip": "no target is more than one standard deviation from the mean, whatever "
    "the policy predicts",
    "slot": "the first action of a chunk is never carried out",
    "newest": "the newest prediction for a tick weighs most; the oldest should",
    "twice": "weights fall from prediction to prediction as if m were larger",
    "stale": "the second episode begins with what was predicted in the first",
}
RATE = "ticks come at {:.0f} Hz; the demonstrations have {:.0f}"


class BenchRobot:
    """Joints and pictures that are known, and a clock that is moved by hand."""

    def __init__(self, policy: "BenchPolicy", seed: int = 0):
        rng = np.random.default_rng(seed)
        self.policy, self.time, self.tick = policy, 0.0, 0
        n, cameras = 2 * policy.setting.ticks, len(policy.cameras)
        self.poses = rng.normal(0.3, 0.8, (n, len(policy.joints)))  # rad
        most = policy.setting.brightest
        self.pictures = rng.integers(0, most + 1, (n, cameras, 1, 2, 3), np.uint8)
        self.pictures[:, :, 0, 0] = most  # somewhere in each
        self.sent: list[Mapping[str, float]] = []
        self.times: list[float] = []

    def read(self) -> dict[str, Any]:
        """Joints in rad and pictures (H, W, 3), by name."""
        self.time += 0.004
        pose = self.poses[self.tick % len(self.poses)].tolist()
        pictures = self.pictures[self.tick % len(self.pictures)].copy()
        order = -1 if self.policy.setting.turned else 1
        joints = list(zip(self.policy.joints, pose, strict=True))
        images = list(zip(self.policy.cameras, pictures, strict=True))
        return {"joints": dict(joints[::order]), "images": dict(images[::order])}

    def send(self, targets: Mapping[str, float]) -> None:
        """Targets in rad, by joint."""
        if not isinstance(targets, dict) or set(targets) != set(self.policy.joints):
            raise ValueError("send takes a dict: for each joint one target in rad")
        self.sent.append({name: float(target) for name, target in targets.items()})
        self.times.append(self.time)
        self.tick += 1

    def now(self) -> float:
        """Seconds."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        if not seconds >= 0:
            raise ValueError(f"sleep was asked for {seconds} s")
        self.time += seconds


class BenchPolicy:
    """Random chunks, normalised; it notes what it is given."""

    def __init__(self, setting: Setting = LESSON, seed: int = 1):
        self.setting, self.fps = setting, setting.fps
        self.joints, self.cameras = setting.joints, setting.cameras
        rng = np.random.default_rng(seed)
        n, a = 2 * setting.ticks, len(self.joints)
        self.mean = {"qpos": rng.normal(0, 1, a)}
        self.mean["action"] = self.mean["qpos"] + rng.normal(0, 0.2, a)
        self.std = {key: rng.uniform(0.2, 0.6, a) for key in ("qpos", "action")}
        self.chunks = rng.normal(0, 1.5, (n, setting.k, a))
        self.work = rng.uniform(*setting.work, n)  # s
        self.robot: BenchRobot | None = None
        self.seen: list[tuple[Any, Any]] = []

    def predict(self, qpos: Any, images: Any) -> np.ndarray:
        """A normalised chunk (k, A)."""
        tick = len(self.seen) % len(self.chunks)
        self.seen.append((qpos, images))
        if self.robot:
            self.robot.time += self.work[tick]
        return self.chunks[tick].copy()


def bench(setting: Setting = LESSON) -> tuple[BenchPolicy, BenchRobot]:
    """A policy and a robot to try code on."""
    policy = BenchPolicy(setting)
    policy.robot = BenchRobot(policy)
    return policy, policy.robot


@exercise(
    "07.deploy",
    minutes=25,
    hints=(
        "Follow one joint's number from `read` to `predict`: in which order, minus "
        "what, divided by what? Then follow one chunk from `predict` to `send`.",
        "Try the pieces alone: what does Ensemble(0.3).step give for a single chunk 0, "
        "1, 2, 3? For a second one? What is still in the queue when an episode begins?",
        "`look`: the order of the policy's joints, the mean and deviation of qpos, "
        "pixels over 255. `in_rad`: nothing but deviation and mean. `Ensemble`: read "
        "before dropping, no reversed weights. `episode`: reset, one `step` a tick, "
        "and `due` grows by 1 / fps.",
    ),
    praise="Nine faults, and none of them raised an error. A run like this one, before "
    "an arm is switched on, costs a second.",
)
def check_deploy(episode: Callable, ensemble: Callable | None = None) -> None:
    """`episode(policy, robot, ensemble, ticks)` and the class of the ensemble."""
    if episode is None or ensemble is None:
        raise NotAttempted

    def examine(setting: Setting) -> None:
        if found := symptoms(episode, ensemble, setting):
            more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
            raise Wrong(f"in a run, {found[0]}{more}")

    each_case(
        {
            "30 Hz, m = 0.3 and 6 joints": LESSON,
            "50 Hz, m = 0.1 and 7 joints": OTHER,
        },
        examine,
        "take the rate from `policy`, joints and cameras by the names that it has, m "
        "from `self.m`, the time from `robot.now()`, and the number of ticks from "
        "`ticks`",
    )


def handed_out() -> tuple[Callable, Callable]:
    """`episode` and the ensemble's class as the lesson hands them out: nine faults."""
    text = (ROOT / "notebooks/src/07_sim_rollout.py").read_text(encoding="utf-8")
    scope: dict[str, Any] = {"np": np}
    for cell in re.findall(r"^# %% deploy-\w+ tags.*\n((?:(?!# %%).*\n)*)", text, re.M):
        stub = split_exercise(cell)[0]
        # What the cell prints and checks is not part of the exercise.
        exec(re.split(r"^(?:policy, robot|print|drive)\b", stub, flags=re.M)[0], scope)
    return scope["episode"], scope["Ensemble"]


def drive(episode: Callable | None = None, ensemble: Callable | None = None) -> None:
    """Run two episodes, and print what is wrong; by default with what is handed out."""
    if episode is None or ensemble is None:
        episode, ensemble = handed_out()
    try:
        found = symptoms(episode, ensemble)
        if not found:
            check_deploy(episode, ensemble)  # with the other arm, too
    except (Wrong, NotAttempted) as error:
        found = [str(error) or "this is not written yet"]
    print("\n".join(f"- {one}" for one in found) or "nothing is wrong with this run")


def symptoms(
    episode: Callable, ensemble: Callable, setting: Setting = LESSON
) -> list[str]:
    """What a run of two episodes shows; empty if all is right.

    Raises:
        NotAttempted: it says so itself, by NotImplementedError.
        Wrong: the code raised, or does something else than a tick at a time.
    """
    policy, robot = bench(setting)
    ticks = setting.ticks
    if inspect.iscoroutinefunction(episode):
        raise Wrong(ASYNC)
    try:
        one = ensemble(setting.m)
        for _ in range(2):
            episode(policy, robot, one, ticks)
    except NotImplementedError:
        raise NotAttempted from None
    except (Exception, SystemExit) as error:
        raise Wrong(f"your function raised {type(error).__name__}: {error}") from None
    for count, what in ((policy.seen, "predictions"), (robot.sent, "targets")):
        if len(count) != 2 * ticks:
            raise Wrong(
                f"in two episodes of {ticks} ticks there are {len(count)} {what}; "
                f"expected one a tick, {2 * ticks}"
            )
    return [*_seen(policy, robot), *_sent(policy, robot), *_rate(policy, robot)]


def _subsets(names: Sequence[str]) -> Iterator[set[str]]:
    """Fewest first."""
    sizes = range(len(names) + 1)
    yield from map(set, chain.from_iterable(combinations(names, n) for n in sizes))


def _seen(policy: BenchPolicy, robot: BenchRobot) -> list[str]:
    """What is wrong with what the policy was given."""
    try:
        qpos = np.array([one for one, _ in policy.seen], float)
        qpos = qpos.reshape(robot.poses.shape)
        images = np.array([one for _, one in policy.seen], float)
        images = images.reshape(robot.pictures.shape)
    except (TypeError, ValueError):
        return [
            f"the policy is not given the {len(policy.joints)} joints (A,) and the "
            "pictures (C, H, W, 3)"
        ]
    found = []
    alphabetical = np.argsort(policy.joints)
    for faults in _subsets(("order", "scale")):
        key = "action" if "scale" in faults else "qpos"
        poses = robot.poses[:, alphabetical] if "order" in faults else robot.poses
        given = (poses - policy.mean[key]) / policy.std[key]
        if np.allclose(qpos, given, atol=1e-4):
            found += [SEEN[name] for name in SEEN if name in faults]
            break
    else:
        found.append("the joints that the policy is given are wrong in another way")
    if np.allclose(images, robot.pictures, atol=1e-3):
        found.append(SEEN["pixels"])
    elif not np.allclose(images, robot.pictures / 255, atol=1e-4):
        found.append(
            "the pictures that the policy is given are wrong in another way: every "
            "pixel is divided by 255, and the cameras come in the policy's order"
        )
    return found


def _sent(policy: BenchPolicy, robot: BenchRobot) -> list[str]:
    """What is wrong with the targets, whatever the policy was given."""
    sent = np.array([[one[name] for name in policy.joints] for one in robot.sent])
    for faults in _subsets(tuple(SENT)):
        if np.allclose(sent, targets(policy, faults), atol=1e-6):
            return [SENT[name] for name in SENT if name in faults]
    right = targets(policy, set())
    tick, joint = np.argwhere(~np.isclose(sent, right, atol=1e-6))[0]
    return [
        f"at tick {tick} {policy.joints[joint]} is sent to {sent[tick, joint]:.2f} "
        f"rad, expected {right[tick, joint]:.2f}, and none of the planted faults "
        "explains that"
    ]


def targets(policy: BenchPolicy, faults: set[str]) -> np.ndarray:
    """(2 T, A) rad, from the definition: each tick's mean over all its predictions."""
    ticks, k, m = policy.setting.ticks, policy.setting.k, policy.setting.m
    chunks = np.clip(policy.chunks, -1, 1) if "clip" in faults else policy.chunks
    rad = chunks * policy.std["action"] + policy.mean["action"]
    later = int("slot" in faults)
    rows = []
    for tick in range(2 * ticks):
        begin = 0 if "stale" in faults else tick // ticks * ticks
        made = range(max(begin, tick - k + 1 + later), tick + 1)
        values = [rad[at, tick - at + later] for at in made]
        if "twice" in faults:
            values = [value for value in values for _ in range(2)]
        weights = [np.exp(-m * i) for i in range(len(values))]
        if "newest" in faults:
            weights.reverse()
        rows.append(np.average(values, axis=0, weights=weights))
    return np.array(rows)


def _rate(policy: BenchPolicy, robot: BenchRobot) -> list[str]:
    """What is wrong with the times at which targets are sent."""
    times = np.array(robot.times).reshape(2, -1)  # of two episodes
    rate = (times.shape[1] - 1) / max(float(np.ptp(times, axis=1).mean()), 1e-9)
    off = abs(rate / policy.fps - 1) > OFF
    return [RATE.format(rate, policy.fps)] if off else []
