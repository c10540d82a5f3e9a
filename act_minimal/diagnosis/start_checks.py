"""Checks of where trials begin: the arm's pose, and what its cameras show."""

from collections.abc import Iterator

import numpy as np

from .findings import Finding, Outcome, Passed, Skipped
from .policy_checks import DEGREES, matched
from .trials import Trials

START = 0.06  # rad beyond what the demonstrations' first poses span
DARK = 0.8  # ratio of grey values
MOVED = 9.0  # grey values of 255


def starts(t: Trials) -> Iterator[Outcome]:
    """Does each trial begin where the demonstrations begin?"""
    demos = t.evidence.demos
    if not t.all:
        for cause in ("start_pose", "joint_order", "units"):
            yield Skipped(cause, "no trial came to its first tick")
        return
    first = demos.qpos[demos.starts]
    low, high = first.min(0) - START, first.max(0) + START
    here = np.array([trial.qpos[0] for trial in t.all])

    def outside(q: np.ndarray) -> np.ndarray:
        """(S,) how far the median start lies outside, in rad."""
        middle = np.median(q, axis=0)
        return np.maximum(np.maximum(low - middle, middle - high), 0)

    off = outside(here)
    names = t.evidence.joints(first.shape[1])
    if off.max() == 0:
        said = f"all {len(names)} joints begin where the demonstrations do"
        for cause in ("start_pose", "joint_order", "units"):
            yield Passed(cause, said)
        return
    j = int(np.argmax(off))
    said = (
        f"{names[j]} begins at {np.median(here[:, j]):.2f}, in the demonstrations "
        f"from {first[:, j].min():.2f} to {first[:, j].max():.2f}"
    )
    found = False
    usual = np.abs(np.median(first, axis=0))
    far = usual[off > 0].max() > 3 * START  # 0 is 0 in every unit, and of every sign
    for cause, words, q in arrangements(here, first, names):
        if outside(q).max() == 0 and (far or cause == "joint_order"):
            found = True
            yield Finding(
                cause,
                "wrong",
                50.0,
                f"{said}; with {words} all fit",
                f"within {START} rad of the demonstrations' first poses",
                "likely",
                f"the driver's {words} differ from the recording's: act inspect of a "
                "new recording beside the old one",
            )
    if not found:
        yield Finding(
            "start_pose",
            "suspect",
            1 + float(off.max()) / START,
            said,
            f"within {START} rad of the demonstrations' first poses",
            "certain",
            "begin trials in the demonstrations' pose, and calibrate again if the arm "
            "stands there but measures something else: act calibrate",
        )


def arrangements(
    here: np.ndarray, first: np.ndarray, names: list[str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Ways in which starts (n, S) could be those of demonstrations (m, S)."""
    cost = np.abs(np.median(here, 0)[:, None] - np.median(first, 0))  # (here, there)
    order = matched(cost.T)  # which of here belongs to each of there
    moved = np.flatnonzero(order != np.arange(len(order)))
    if len(moved):
        words = "order of " + ", ".join(names[i] for i in moved)
        yield "joint_order", words, here[:, order]
    angles = np.array(["gripper" not in name for name in names])
    for words, factor in (("degrees", DEGREES), ("radians", 1 / DEGREES)):
        scale = np.where(angles, 1 / factor, 1.0)
        yield "units", f"angles in {words}", here * scale
        yield "units", f"numbers in {words}", here / factor
    for j, name in enumerate(names):
        sign = np.ones(len(names))
        sign[j] = -1
        yield "joint_sign", f"sign of {name}", here * sign


def cameras(t: Trials) -> Iterator[Outcome]:
    """Do the cameras see what they saw?"""
    names = t.evidence.policy.cameras
    seen = [x for x in t.all if set(names) <= x.images.keys()]
    if not names or not seen:
        for cause in ("camera_swap", "light", "camera_moved"):
            yield Skipped(cause, "no images of trials")
        return
    frames = t.evidence.frames
    before, now = {}, {}
    for camera in names:
        images = frames.observation[f"images/{camera}"][frames.first]
        before[camera] = np.median(images.astype(np.float32), axis=0)
        first = np.array([x.images[camera][0] for x in seen], np.float32)
        now[camera] = np.median(first, axis=0)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if now[one].shape != before[other].shape:
                continue
            straight = _apart(now[one], before[one]) + _apart(now[other], before[other])
            crossed = _apart(now[one], before[other]) + _apart(now[other], before[one])
            said = (
                f"first images differ from the demonstrations' by {straight:.0f} of "
                f"255, with {one} and {other} exchanged by {crossed:.0f}"
            )
            if crossed < 0.6 * straight:
                yield Finding(
                    "camera_swap",
                    "wrong",
                    50.0,
                    said,
                    "less as they are than exchanged",
                    "certain",
                    f"exchange the cameras {one} and {other}",
                )
                return
            yield Passed("camera_swap", said)
    for camera in names:
        dark = float(max(now[camera].mean(), 1) / max(before[camera].mean(), 1))
        said = f"{camera} is {100 * dark:.0f} % as bright as in the demonstrations"
        if dark < DARK or dark > 1 / DARK:
            yield Finding(
                "light",
                "wrong" if dark < DARK**2 or dark > DARK**-2 else "suspect",
                10 * max(dark / (1 / DARK), DARK / dark),
                said,
                f"within a factor of {1 / DARK:.2f}; half the light costs most of the "
                "success (C27)",
                "likely",
                "light and fix the exposure as in the demonstrations; or train with "
                "--brightness 0.5 --contrast 0.3",
            )
        else:
            yield Passed("light", said)
        apart = _apart(_levelled(now[camera]), _levelled(before[camera]))
        said = f"{camera} at the start differs by {apart:.1f} of 255, light apart"
        if apart > MOVED:
            yield Finding(
                "camera_moved",
                "suspect",
                apart / MOVED,
                said,
                f"at most {MOVED:g}: only the objects lie elsewhere",
                "likely",
                f"hold a demonstration's first image of {camera} beside its live "
                "picture, and turn the camera until they agree",
            )
        else:
            yield Passed("camera_moved", said)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


def _levelled(image: np.ndarray) -> np.ndarray:
    return 50 * (image - image.mean()) / max(float(image.std()), 1.0)


CHECKS = (starts, cameras)
