"""Lesson 08: a packet's bytes, steps to angles, and the last thing before the bus."""

import math
from collections.abc import Callable

import numpy as np

from ..toolkit.checks import (
    NotAttempted,
    Wrong,
    attempt,
    each_case,
    exercise,
    is_right,
    name_the_mistake,
    number,
    told_apart,
)


def _packet(id: int, address: int, size: int) -> list[int]:
    """A READ request, byte for byte; the checksum fills the sum up to 255 mod 256."""
    body = [id, 4, 2, address, size]
    rest = 255
    for byte in body:
        rest = (rest - byte) % 256
    return [255, 255, *body, rest]


@exercise(
    "08.packet",
    minutes=10,
    hints=(
        "The table lists the bytes in their order. How many follow the length?",
        "The length is 4: instruction, address, size, checksum. The checksum is "
        "`~sum(body) & 0xFF`; the two FF do not belong to the body.",
        "body = bytes([id, 4, 2, address, size]); return b'\\xff\\xff' + body + "
        "bytes([~sum(body) & 0xFF]).",
    ),
    praise="A servo would answer this. Every byte of a policy's run goes this way.",
)
def check_packet(function: Callable) -> None:
    """`function(id, address, size)` gives the bytes of a READ request."""
    for case in ((3, 56, 2), (6, 40, 15), (253, 250, 3)):
        found = _bytes_of(attempt(function, *case))
        right = _packet(*case)
        if found != right:
            _name_the_bytes(found, right, case)


def _bytes_of(answer: object) -> list[int]:
    if not isinstance(answer, bytes | bytearray | list | tuple):
        raise Wrong(f"return bytes; yours is {type(answer).__name__}")
    try:
        return list(bytes(answer))
    except (TypeError, ValueError) as error:
        raise Wrong(f"that cannot be sent as bytes: {error}") from None


def _name_the_bytes(
    found: list[int], right: list[int], case: tuple[int, int, int]
) -> None:
    text = " ".join(f"{b:02X}" for b in found) or "nothing"
    if found[:2] != [255, 255]:
        raise Wrong(f"a packet begins with FF FF; yours is {text}")
    if len(found) != 8:
        raise Wrong(f"a READ request has 8 bytes; yours has {len(found)}: {text}")
    if found[2] != right[2]:
        raise Wrong(
            "the id comes right after FF FF, as the argument says: "
            f"{right[2]:02X} here, not {found[2]:02X}"
        )
    if found[3] != 4:
        raise Wrong(
            f"the length counts what follows it (instruction, address, size, "
            f"checksum): 4, not {found[3]}"
        )
    if found[4] != 2:
        raise Wrong(f"READ is instruction 2; yours is {found[4]}")
    if found[5:7] == right[6:4:-1]:
        raise Wrong("address first, then size")
    for at, what in ((5, "address"), (6, "size")):
        if found[at] != right[at]:
            raise Wrong(
                f"the {what} is {right[at]:02X} here, and yours {found[at]:02X}: take "
                f"it from the argument"
            )
    body = sum(right[2:7])
    mistakes = {
        "the sum is not inverted: ~sum & 0xFF": body % 256,
        "the two FF do not count for the checksum": (255 - (body + 510)) % 256,
        "this is minus the sum (two's complement); the checksum is its inverse, one "
        "less": -body % 256,
        "the id belongs to the checksum, too": (255 - (body - right[2])) % 256,
        "the length belongs to the checksum, too": (255 - (body - 4)) % 256,
    }
    name_the_mistake(found[7], mistakes)
    raise Wrong(
        f"for id, address, size = {case} expected "
        f"{' '.join(f'{b:02X}' for b in right)}, found {text}"
    )


@exercise(
    "08.steps",
    minutes=8,
    hints=(
        "At the middle of its sweep the joint is at `middle`. How many steps is it "
        "from there, and how many radians is a step?",
        "A full turn is 4096 steps and 2π. Where `sense` is -1, growing steps turn "
        "the joint back.",
        "return middle + sense * (steps - (first + last) / 2) * 2 * np.pi / 4096.",
    ),
    praise="A calibration is two numbers a joint: where the middle is, and which way.",
)
def check_steps(function: Callable) -> None:
    """`function(steps, first, last, middle, sense)` gives the joint's angle in rad."""
    for case in (
        (2600, 900, 3100, -1.66, 1),
        (1200, 1000, 3000, 0.3, -1),
        (2000, 1100, 3300, 0.3, -1),  # its middle is not 2000
        (1500, 1101, 3300, 0.2, 1),  # its middle lies between two steps
        (870, 860, 3140, -1.574, 1),  # the lift near its end, beyond -π
    ):
        steps, first, last, middle, sense = case
        found = number(attempt(function, *case), "one angle, a number,")
        half_way = first + (last - first) / 2
        turned = math.tau * (steps - half_way) / 4096
        right = middle + sense * turned
        mistakes = {
            "these are degrees; return radians": math.degrees(right),
            "`sense` is ignored: where it is -1, growing steps turn the joint back": (
                middle + turned
            ),
            "`sense` turns the steps, not the middle": sense * (middle + turned),
            "the angle at mid-sweep, `middle`, is missing": sense * turned,
            "count steps from the middle of the sweep, not from its start": middle
            + sense * math.tau * (steps - first) / 4096,
            "count steps from the middle of *this sweep*, (first + last) / 2, not "
            "from 2048 or 2000": [
                middle + sense * math.tau * (steps - centre) / 4096
                for centre in (2048, 2000)
            ],
            "the middle of a sweep may lie between two steps: / 2, not // 2": middle
            + sense * math.tau * (steps - (first + last) // 2) / 4096,
            "`middle` is another for each joint: take it from the argument": -1.66
            + sense * turned,
            "a full turn is 2π; this uses π": middle + sense * turned / 2,
            "a full turn has 4096 steps, not 4095: the last one and the first are "
            "neighbours": middle + sense * turned * 4096 / 4095,
            "the angle is wrapped into -π to π; the lift's range reaches beyond -π, "
            "where it would seem to be at its other end": (
                (right + math.pi) % math.tau - math.pi
            ),
        }
        if not is_right(found, right, mistakes, rtol=0, atol=1e-6):
            expected, said = told_apart(right, found, digits=4)
            raise Wrong(
                f"for steps {steps}, sweep {first} to {last}, middle {middle}, sense "
                f"{sense} expected {expected}, found {said}"
            )


@exercise(
    "08.limit",
    minutes=10,
    hints=(
        "Three things stand between a wish and the bus: a number that is none, the "
        "joint's range, and the leap from the last target. Which must come first?",
        "`np.clip(nan, low, high)` is nan, and so is every comparison with it false: "
        "refuse it with `np.isfinite` before anything else.",
        "if not np.isfinite(wish).all(): raise ValueError('not finite'). Then "
        "np.clip(np.clip(wish, low, high), last - step, last + step): what comes last "
        "always holds.",
    ),
    praise="Whatever a policy wishes, no joint is sent a leap.",
)
def check_limit(function: Callable) -> None:
    """`function(wish, last, low, high, step)` gives the target to send, (6,)."""
    low, high = np.full(6, -1.0), np.full(6, 1.0)
    last = np.array([0.0, 0.9, -0.9, 0.2, -0.5, 0.0])
    wish = np.array([0.05, 1.4, -2.0, 0.9, -0.52, -0.4])
    step = 0.3
    _name_the_targets(function, wish, last, low, high, step)
    outside = np.array([1.5, -1.9, 1.2, -1.1, 0.0, 0.0])  # carried there by hand
    _name_the_targets(function, wish, outside, low, high, step)
    far = np.array([0.05, 40.0, -3.2, 1e6, -0.52, -500.0])  # large, but numbers
    _name_the_targets(function, far, last, low, high, step)
    narrow = 0.1 * np.arange(5, 11)  # another range for each joint
    each_case(
        {
            "step = 0.3": (low, high, step),
            "step = 0.1": (low, high, 0.1),
            "other ranges": (-narrow, narrow[::-1], step),
        },
        lambda limits: _name_the_targets(function, wish, last, *limits),
        "take low, high and step from the arguments",
    )
    for joint, nonsense in ((2, np.nan), (0, np.inf), (5, -np.inf)):
        bad = wish.copy()
        bad[joint] = nonsense
        _expect_refusal(function, bad, nonsense, last, low, high, step)


def _name_the_targets(
    function: Callable,
    wish: np.ndarray,
    last: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    step: float,
) -> None:
    right = [
        min(max(min(max(w, a), b), t - step), t + step)
        for w, a, b, t in zip(wish, low, high, last, strict=True)
    ]
    given = (x.copy() for x in (wish, last, low, high))
    answer = attempt(function, *given, step)
    try:
        found = np.asarray(answer, float)
    except (TypeError, ValueError):
        raise Wrong(f"return 6 targets; yours is {answer!r}") from None
    if found.shape != (6,):
        raise Wrong(f"return 6 targets, (6,); the shape of yours is {found.shape}")
    ranged = np.clip(wish, low, high)
    near = np.clip(wish, last - step, last + step)
    leap = ranged - last
    mistakes = {
        "the joint's range holds, but nothing stops a leap: at most `step` from "
        "`last`": ranged,
        "the leap is limited, but the joint's range is not": near,
        "where a joint stands outside its range, as after it was pushed, it is sent "
        "back in one leap: let the limit on the step come last": np.clip(
            near, low, high
        ),
        "the leap is measured from the wish, not from the last target": np.clip(
            last, wish - step, wish + step
        ),
        "a wish beyond the limits is dropped; come as near to it as is allowed": (
            np.where((ranged != wish) | (np.abs(wish - last) > step), last, wish)
        ),
        "all joints are scaled together; each joint has its own limit": last
        + leap * min(1.0, step / float(np.abs(leap).max())),
    }
    if not is_right(found, right, mistakes, rtol=0, atol=1e-9):
        joint = int(np.argmax(np.abs(found - right)))
        raise Wrong(
            f"joint {joint} wishes {wish[joint]} from {last[joint]}: expected "
            f"{right[joint]:.2f}, found {found[joint]:.2f}"
        )


def _expect_refusal(
    function: Callable, bad: np.ndarray, nonsense: float, *limits: object
) -> None:
    try:
        answer = function(bad, *limits)
    except NotImplementedError:
        raise NotAttempted from None
    except ValueError:
        return  # refused, as it should be
    except AssertionError:
        raise Wrong(
            "it is refused with assert, and Python leaves asserts out when it runs "
            "with -O: raise ValueError"
        ) from None
    except Exception as error:
        raise Wrong(
            f"a wish of {nonsense} ends in {type(error).__name__}; raise ValueError, "
            "so that the caller can tell it from a fault in your code"
        ) from None
    try:
        passed = not np.isfinite(np.asarray(answer, float)).all()
    except (TypeError, ValueError):
        passed = True
    if passed:
        raise Wrong(
            f"a wish of {nonsense} is not refused: np.clip lets nan through, and a "
            "text or None that is returned stops nobody; raise ValueError"
        )
    raise Wrong(
        f"a wish of {nonsense} is quietly replaced, but something upstream is broken: "
        "raise ValueError"
    )
