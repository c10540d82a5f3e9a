"""Checks of the demonstrations: what a policy cannot do better than it was shown."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..datasets.inspect import inspect_dataset
from ..support.hdf5_files import is_true
from .evidence import IDLE, Evidence
from .findings import Finding, Level, Outcome, Passed, Skipped
from .policy_checks import ENOUGH
from .response import lag

FAILED = 0.04  # share of the episodes
SEVERAL = 3  # episodes
ODD = 6.0  # median distances of an end from the median end
AHEAD = -2  # ticks
ALIKE = 0.5  # of the actions' spread
NEAR = 0.05  # of the zone that all starts span
STARTS = 0.5  # different starts over episodes
MIXED = 12.0  # grey values of 255


def recordings(e: Evidence) -> Iterator[Outcome]:
    """What `act inspect` finds in the numbers."""
    report = inspect_dataset(e.demos.folder, images=False)
    # These have checks of their own.
    said = [w for w in report.warnings if "hardly moves" not in w and "marked" not in w]
    if not said:
        yield Passed("data_faults", f"act inspect finds none in {report.episodes}")
        return
    still = [w for w in said if "equal the state in every frame" in w]
    yield Finding(
        "data_faults",
        "wrong" if still else "note",
        float(len(said)),
        "; ".join((still + [w for w in said if w not in still])[:3]),
        "none",
        "certain",
        f"act inspect {e.demos.folder} lists all",
    )


def failures(e: Evidence) -> Iterator[Outcome]:
    """Do some episodes fail, or end where the others do not?"""
    demos = e.demos
    labels = [a.get("success") for a in demos.attributes]
    failed = [i for i, x in enumerate(labels) if x is not None and not is_true(x)]
    ends = demos.action[demos.starts + demos.lengths - 1]  # (episodes, A)
    apart = np.abs(ends - np.median(ends, axis=0))
    usual = np.maximum(np.median(apart, axis=0), IDLE)
    odd = np.flatnonzero((apart / usual).max(1) > ODD)
    short = np.flatnonzero(demos.lengths < 0.6 * np.median(demos.lengths))
    bad = sorted({*failed, *(set(odd.tolist()) & set(short.tolist()))})
    share = len(bad) / len(demos)
    names = ", ".join(demos.names[i] for i in bad[:4])
    said = (
        f"{len(failed)} of {len(demos)} marked as failures, {len(short)} much shorter "
        f"than usual, {len(odd)} end in another pose than most"
    )
    if not bad or share < FAILED:
        yield Passed("failed_episodes", said)
        return
    level: Level = "note" if len(bad) < SEVERAL else "suspect"
    if level == "suspect" and share > 2 * FAILED:
        level = "wrong"
    yield Finding(
        "failed_episodes",
        level,
        share / FAILED,
        f"{said}; suspicious: {len(bad)} ({names}{' ...' if len(bad) > 4 else ''})",
        f"at most {100 * FAILED:.0f} %: imitation learns failures too",
        "certain" if failed else "likely",
        "look at them: act inspect --picture; move them out of the folder, and train "
        "again",
    )


def styles(e: Evidence) -> Iterator[Outcome]:
    """Do demonstrations that begin alike go on alike, for a second?"""
    demos = e.demos
    if len(demos) < ENOUGH or demos.env_state is None:
        why = f"fewer than {ENOUGH} demonstrations, or nobody knows where objects lay"
        yield Skipped("two_styles", why)
        return
    starts = np.concatenate([demos.qpos, demos.env_state], 1)
    starts = starts[demos.starts] / np.maximum(starts.std(0), IDLE)  # (episodes, S + E)
    apart = np.abs(starts[:, None] - starts).max(2)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(1)
    ticks = np.minimum(np.arange(round(demos.fps)), demos.lengths.min() - 1)
    paths = demos.action[demos.starts[:, None] + ticks]  # (episodes, T, A)
    differ = float(np.median(np.abs(paths - paths[nearest]) / e.spread, axis=0).mean())
    said = (
        "the first second of the two demonstrations that begin most alike differs by "
        f"{differ:.2f} of the actions' spread"
    )
    if differ > ALIKE:
        yield Finding(
            "two_styles",
            "note",
            differ / ALIKE,
            said,
            f"at most {ALIKE}: fifty human-like demonstrations of one way have up to "
            "0.44, ten of them up to 0.8",
            "possible",
            "look at them: act inspect --picture; keep one way, or train a policy that "
            "can keep both: act train --model head flow (lesson F2)",
        )
    else:
        yield Passed("two_styles", said)


def timing(e: Evidence) -> Iterator[Outcome]:
    """Does each joint move after its commands, not before?"""
    if not e.same_joints:
        yield Skipped("joint_timing", "states and actions are not of the same joints")
        return
    delays, known = lag(e.episodes, 12)
    if not known.any():
        yield Skipped("joint_timing", "no joint's lag can be told from the episodes")
        return
    listed = zip(np.array(e.names)[known], delays[known], strict=True)
    said = "joints are behind their commands by " + ", ".join(
        f"{d:+d} ({name})" for name, d in listed
    )
    j = int(np.argmin(np.where(known, delays, np.inf)))
    if delays[j] <= AHEAD:
        yield Finding(
            "joint_timing",
            "wrong",
            float(-delays[j]),
            f"{said} ticks",
            f"more than {AHEAD}: an arm cannot move before it is told to",
            "likely",
            f"look at {e.names[j]}: are its commands and its state of the same "
            f"instant? act inspect {e.demos.folder} --picture",
        )
    else:
        yield Passed("joint_timing", said + " ticks")


def scene_of(attributes: Mapping[str, Any]) -> int | None:
    """The number of the simulated scene that an episode began in, if it says one."""
    said: Any = attributes.get("scene")
    with contextlib.suppress(TypeError, ValueError):
        if int(said) >= 0:
            return int(said)
    return None


def variety(e: Evidence) -> Iterator[Outcome]:
    """In how many different scenes do the demonstrations begin?"""
    demos = e.demos
    if len(demos) < ENOUGH:
        yield Skipped("few_scenes", f"fewer than {ENOUGH} demonstrations")
        return
    scenes = [scene_of(attributes) for attributes in demos.attributes]
    if demos.env_state is not None:
        first = demos.env_state[demos.starts]  # (episodes, E)
        near = np.abs(first[:, None] - first) < NEAR * np.ptp(first, axis=0) + 1e-6
        left, different = np.ones(len(demos), bool), 0
        while left.any():  # each start takes those near it with it
            left &= ~near[np.argmax(left)].all(1)
            different += 1
    elif None not in scenes:
        different = len(set(scenes))
    else:
        yield Skipped("few_scenes", "neither the objects' poses nor scenes are known")
        return
    share = different / len(demos)
    said = f"{different} different starts in {len(demos)} demonstrations"
    if share < STARTS:
        yield Finding(
            "few_scenes",
            "wrong" if share < STARTS / 2 else "suspect",
            STARTS / share,
            said,
            f"more than {STARTS:.0%} of them: success on new scenes needs starts all "
            "over the zone (C22)",
            "likely",
            "record more demonstrations, with the objects elsewhere each time",
        )
    else:
        yield Passed("few_scenes", said)


def cameras(e: Evidence) -> Iterator[Outcome]:
    """Does each camera show the same background in all demonstrations?"""
    if not e.policy.cameras:
        yield Skipped("mixed_cameras", "the policy has no cameras")
        return
    for camera in e.policy.cameras:
        images = e.frames.observation[f"images/{camera}"]
        first = images[e.frames.first].astype(np.float32)  # (episodes, H, W, 3)
        apart = np.abs(first - np.median(first, axis=0)).mean((1, 2, 3))
        worst = float(np.quantile(apart, 0.9))
        said = (
            f"first images of {camera} differ from the usual one by {worst:.1f} of 255"
        )
        if worst > MIXED:
            yield Finding(
                "mixed_cameras",
                "suspect",
                worst / MIXED,
                said,
                f"at most {MIXED:g}: the objects lie elsewhere, the rest stays",
                "possible",
                f"act inspect {e.demos.folder} --picture; keep the episodes of one "
                "day, or record with the camera where it will be",
            )
        else:
            yield Passed("mixed_cameras", said)


CHECKS = (recordings, failures, styles, timing, variety, cameras)
