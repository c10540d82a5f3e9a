"""Lesson 09: two policies as one, a frame by hand, and what an arm sinks with."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..toolkit.checks import (
    NotAttempted,
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    numbers,
    same,
)


class _Arm:
    """Stands in for one arm's policy; its chunk tells what it was shown."""

    cameras: tuple[str, ...] = ()

    def __init__(self, name: str, sign: float, chunk_size: int):
        self.name, self.sign, self.calls = name, sign, 0
        self.chunk_size = chunk_size
        self.fault = ""

    def predict_chunk(self, observation: Any) -> np.ndarray:
        self.calls += 1
        joints = np.asarray(observation["qpos"])
        if joints.ndim != 2 or joints.shape[1] != 8:
            self.fault = (
                f"the {self.name} policy was shown qpos of shape {joints.shape}; it "
                "was trained with the 8 joints of its own arm, (B, 8)"
            )
            return np.zeros((len(joints), self.chunk_size, 8), np.float32)
        if "env_state" not in observation:
            self.fault = f"the {self.name} policy sees the bar's pose, env_state, too"
            return np.zeros((len(joints), self.chunk_size, 8), np.float32)
        ticks = np.arange(self.chunk_size)[:, None]
        bar = np.asarray(observation["env_state"])[:, None, :1]
        return (self.sign * joints[:, None] + 100 * ticks + bar).astype(np.float32)


@exercise(
    "09.side_by_side",
    minutes=5,
    hints=(
        "Each policy sees eight joints: the right arm's are the first eight of qpos, "
        "for all robots at once.",
        "seen | {'qpos': ...} is a copy with another qpos. Two chunks (B, k, 8) become "
        "one (B, k, 16): along which axis?",
        "np.concatenate([right.predict_chunk(seen | {'qpos': seen['qpos'][:, :8]}), "
        "left.predict_chunk(seen | {'qpos': seen['qpos'][:, 8:]})], axis=2).",
    ),
    praise="To the control loop these two are one policy now.",
)
def check_side_by_side(function: Callable) -> None:
    """`function(right, left, seen)` gives the chunk of both arms, (B, k, 16)."""
    each_case(
        {"B, k = 2, 3": (2, 3), "B, k = 3, 5": (3, 5)},
        lambda sizes: _examine_both_arms(function, *sizes),
        "take B and k from what the policies return",
    )


def _examine_both_arms(function: Callable, batch: int, k: int) -> None:
    qpos = np.arange(16.0 * batch, dtype=np.float32).reshape(batch, 16)
    bar = np.repeat(np.arange(1000, 1000 * (batch + 1), 1000.0)[:, None], 7, 1)
    bar = bar.astype(np.float32)
    seen = {"qpos": qpos.copy(), "env_state": bar.copy()}
    right, left = _Arm("right arm's", 1.0, k), _Arm("left arm's", -1.0, k)
    answer = attempt(function, right, left, seen)
    for arm in (right, left):
        if not arm.calls:
            raise Wrong(f"the {arm.name} policy was not asked")
        if arm.fault:
            raise Wrong(arm.fault)
    found = numbers(answer)
    if found.shape != (batch, k, 16):
        raise Wrong(
            f"expected a chunk (B, k, 16), here ({batch}, {k}, 16): {found.shape}"
        )

    def chunk(first: int, second: int, flipped: bool = False) -> np.ndarray:
        rows = np.empty((batch, k, 16))
        for b in range(batch):
            for t in range(k):
                for j in range(8):
                    rest = 100 * t + bar[b, 0]
                    rows[b, t, j] = qpos[b, first + j] + rest
                    rows[b, t, 8 + j] = -qpos[b, second + j] + rest
        return np.roll(rows, 8, axis=2) if flipped else rows

    mistakes = {
        "each policy was shown the other arm's joints": chunk(8, 0),
        "the left arm's actions come first; the right arm's are the first eight": chunk(
            0, 8, True
        ),
        "both mixed up: the first eight are the right arm's, of joints and actions": (
            chunk(8, 0, True)
        ),
        "both policies were shown the right arm's joints": chunk(0, 0),
        "both policies were shown the left arm's joints": chunk(8, 8),
    }
    if not is_right(found, chunk(0, 8), mistakes, rtol=0, atol=0):
        raise Wrong(
            "the numbers are not those of the two policies: expected the right's chunk "
            "in the first eight columns and the left's in the others, unchanged"
        )


Ranges = Sequence[tuple[float, float, int]]
_DM4340: Ranges = (
    (-12.5, 12.5, 16),
    (-10.0, 10.0, 12),
    (0.0, 500.0, 12),
    (0.0, 5.0, 12),
    (-28.0, 28.0, 12),
)
_OTHER: Ranges = (  # a made-up motor, no number of which is the same
    (-6.0, 6.0, 12),
    (-45.0, 45.0, 16),
    (0.0, 400.0, 11),
    (0.0, 4.0, 11),
    (-54.0, 54.0, 14),
)


def _bits(
    goal: Sequence[float],
    ranges: Ranges,
    steps: Callable[[float, int], int] = lambda share, bits: math.floor(
        share * (2**bits - 1)
    ),
) -> str:
    """The frame as a text of 64 noughts and ones."""
    text = ""
    for x, (low, high, bits) in zip(goal, ranges, strict=True):
        share = (min(high, max(low, x)) - low) / (high - low)
        text += format(steps(share, bits) % 2**bits, f"0{bits}b")
    return text


def _frame(text: str) -> bytes:
    return bytes(int(text[i : i + 8], 2) for i in range(0, 64, 8))


@exercise(
    "09.frame",
    minutes=10,
    hints=(
        "A number becomes a share of its range, the share a whole number of steps: "
        "int(share * (2**bits - 1)). Begin with cutting it off to its range.",
        "Five whole numbers of 16, 12, 12, 12 and 12 bits are one of 64: shift what "
        "there is to the left by `bits`, and put the next one in: packed << bits | n.",
        "packed = 0; in the loop packed = packed << bits | n; at the end "
        "packed.to_bytes(8, 'big').",
    ),
    praise="Eight bytes, and a motor is a spring. An arm takes eight of these a tick.",
)
def check_frame(function: Callable) -> None:
    """`function(goal, ranges)` gives the 8 bytes of a MIT frame."""
    goals = (  # no step is a whole number, which rounding may miss
        (1.21, 0.0, 190.0, 2.2, 3.5),
        (-0.41, 0.5, 60.0, 2.03, -1.0),
        (0.3, -40.0, 900.0, 7.0, 50.0),
    )

    def examine(ranges: Ranges) -> None:
        for goal in goals:
            answer = attempt(function, goal, ranges)
            if not isinstance(answer, bytes | bytearray):
                raise Wrong(f"return bytes; yours is {type(answer).__name__}")
            _name_the_frame(bytes(answer), goal, ranges)

    each_case(
        {"a motor of 28 Nm": _DM4340, "other ranges and bits": _OTHER},
        examine,
        "take each (low, high, bits) from `ranges`",
    )
    for i, name in enumerate(("position", "velocity", "kp", "kd", "torque")):
        goal = [0.0] * 5
        goal[i] = math.nan
        _expect_refusal(function, tuple(goal), name)


def _expect_refusal(function: Callable, goal: Sequence[float], name: str) -> None:
    try:
        sent = function(goal, _DM4340)
    except NotImplementedError:
        raise NotAttempted from None
    except Exception:
        return  # refused, as it should be
    raise Wrong(
        f"a {name} that is no number goes out as {sent!r}: max(low, nan) is low; "
        "put it the other way round, max(x, low), and int() refuses it"
    )


def _name_the_frame(found: bytes, goal: Sequence[float], ranges: Ranges) -> None:
    if len(found) != 8:
        raise Wrong(f"16 + 4 × 12 bits are 8 bytes; yours has {len(found)}")
    right = _frame(_bits(goal, ranges))
    backwards = list(reversed(list(zip(goal, ranges, strict=True))))
    swapped = [goal[0], goal[1], goal[3], goal[2], goal[4]]

    def of(steps: Callable[[float, int], int]) -> bytes:
        return _frame(_bits(goal, ranges, steps))

    halved = [(-high if low == 0 else low, high, bits) for low, high, bits in ranges]
    mistakes = {
        "the lowest byte comes first; this frame begins with the highest: 'big'": (
            right[::-1]
        ),
        "the first number belongs into the highest bits": _frame(
            _bits([g for g, _ in backwards], [r for _, r in backwards])
        ),
        "kp comes before kd": _frame(_bits(swapped, ranges)),
        "the motor's maker cuts off, int(...), and does not round": of(
            lambda share, bits: round(share * (2**bits - 1))
        ),
        "the highest step is 2**bits - 1: with 2**bits there is one too many": of(
            lambda share, bits: math.floor(share * 2**bits)
        ),
        "kp and kd begin at 0; `ranges` says so": _frame(_bits(goal, halved)),
        "velocity with a range of 8 rad/s: this motor's is 10, and `ranges` says so": (
            _frame(_bits(goal, [ranges[0], (-8.0, 8.0, 12), *ranges[2:]]))
        ),
    }
    if is_right(found, right, mistakes):
        return
    beyond = any(not a <= x <= b for x, (a, b, _) in zip(goal, ranges, strict=True))
    if beyond:
        raise Wrong(
            "what is beyond its range has to be cut off to it first, or its bits run "
            "over into its neighbour's"
        )
    raise Wrong(
        f"for {goal} expected {right.hex(' ').upper()}, found {found.hex(' ').upper()}"
    )


@exercise(
    "09.sink",
    minutes=5,
    hints=(
        "At share 0 the arm is held, at share 1 only its brake is left. Which of the "
        "three holds, which carries, which brakes?",
        "Stiffness and carried weight fade together: both times (1 - share). Damping "
        "does not fade: it is what makes a fall a sinking.",
        "return (1 - share) * kp, np.maximum(kd, brake), 1 - share.",
    ),
    praise="`soften` sends this, a hundred times a second for two seconds.",
)
def check_sink(function: Callable) -> None:
    """`function(share, kp, kd, brake)` gives stiffness, damping, weight carried."""
    firm = [230.0, 190.0, 30.0, 10.0], [2.7, 2.2, 1.5, 0.4], [5.0, 5.0, 1.5, 0.2]
    soft = [60.0, 20.0, 5.0, 9.0, 7.0], [0.3, 0.5, 2.0, 0.1, 0.6], [1.0, 0.4, 3.0, 1, 1]
    each_case(
        {"4 motors": firm, "5 others": soft},
        lambda gains: _examine_sinking(function, *map(np.array, gains)),
        "take gains and their number from kp, kd and brake",
    )


def _examine_sinking(
    function: Callable, kp: np.ndarray, kd: np.ndarray, brake: np.ndarray
) -> None:
    def near(found: Any, value: Any) -> bool:
        return same(found, value, rtol=0, atol=1e-9)

    n, most = len(kp), np.array([max(pair) for pair in zip(kd, brake, strict=True)])
    for share in (0.25, 0.0, 1.0):  # at the first, mistakes differ
        answer = attempt(function, share, kp.copy(), kd.copy(), brake.copy())
        try:
            stiff, damp, weight = answer
            stiff = np.asarray(stiff, float).reshape(n)
            damp = np.asarray(damp, float).reshape(n)
            weight = float(weight)
        except (TypeError, ValueError):
            raise Wrong(
                "return three things: stiffness and damping, as many as motors, and "
                f"the share of the weight, a number; yours is {answer!r}"
            ) from None
        left = 1 - share
        # What is not told apart at this share is at another one.
        if near((stiff, damp, weight), (left * kp, most, left)):
            continue
        mistakes = {
            "the other way round: at share 0 the arm is held, at share 1 it is not": (
                near(stiff, share * kp) and not near(left, share)
            ),
            "the stiffness does not fade, so the arm is still held at the end": (
                near(stiff, kp) and share > 0
            ),
            "with all of its weight carried to the end the arm floats, and then falls "
            "when the torque goes off": near(weight, 1.0) and share > 0,
            "the weight is dropped at once: the arm sags with a jerk": (
                near(weight, 0.0) and share < 1
            ),
            "the damping fades, too: without it the sinking is a fall": (
                near(damp, left * kd) or near(damp, left * most)
            ),
            "brake as hard as `brake` allows, while there is time": near(damp, kd),
            "where `kd` is already more than `brake`, keep it: the larger of both": (
                near(damp, brake)
            ),
        }
        for words, made in mistakes.items():
            if made:
                raise Wrong(words)
        raise Wrong(
            f"at share {share} expected stiffness {left * kp}, damping {most} and "
            f"weight {left}; found {stiff}, {damp} and {weight}"
        )
