"""Checks of what an arm does, beside what it did when it was recorded."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..evaluation import jerk, still
from ..execution import newest_share
from .findings import CAUSES, Finding, Level, Outcome, Passed, Skipped, Sure
from .policy_checks import DEGREES
from .response import response
from .trials import Trials, phases, rate, replay

AGAIN, REPLAYS = 0.95, 0.7  # of the demonstrations that succeed again
SOME = 6  # of them, on which corrections are tried first
DEGREES_TRIED = (-8, -5, -3, 3, 5, 8)
LATE = 2  # ticks
SLOWER = 2.0  # ratio of gains
LOST = 4  # failures that say where it fails
UNCOVERED = 1.8  # distance from demonstrations, of failures over successes
KNOWN_ONLY = 0.3  # success on scenes of the demonstrations over new ones
UNEVEN = 3  # times an even share of the ensemble
STILL_SHARE = 2.5  # times the demonstrations' share of standing still


def replays(t: Trials) -> Iterator[Outcome]:
    """Do demonstrations succeed again? If not, what would make them?"""
    again = rate(t.replayed)
    if again is None or t.explained:
        why = "no demonstration was sent again"
        if t.explained:
            why = f"replays cannot tell: {CAUSES[t.explained]}"
        for cause in ("calibration", "joint_sign"):
            yield Skipped(cause, why)
        return
    said = f"of the demonstrations' actions, sent again unseeing, {again} succeed"
    if again.rate >= AGAIN:
        for cause in ("calibration", "joint_sign"):
            yield Passed(cause, said)
        return
    usual = (
        f"at least {100 * AGAIN:.0f} %: the same actions in the same scenes; where "
        "they fail, no policy is to blame"
    )
    helps = changes_that_help(t) if again.rate < REPLAYS else []
    if helps:
        cause = helps[0][0]
        words = " or ".join(w for c, w, _ in helps if c == cause)
        yield Finding(
            cause,
            "wrong",
            20.0 + helps[0][2] - again.rate,
            f"{said}; with {words} {100 * helps[0][2]:.0f} %",
            usual,
            "likely",
            "calibrate the arm again (act calibrate), and replay again",
        )
    else:
        yield Finding(
            "calibration",
            "suspect",
            AGAIN / max(again.rate, 0.05),
            said,
            usual,
            "possible",
            "hold a demonstration's first image beside what the camera sees now, at "
            "the same joints: is the arm, the table or the camera elsewhere, does the "
            "gripper close, do the demonstrations end too early?",
        )


def changes_that_help(t: Trials) -> list[tuple[str, str, float]]:
    """Signs and offsets of one joint with which replays succeed, the best first.

    Sought on some episodes, and confirmed on all: of many tries some succeed by chance.
    """
    if t.make_robot is None:
        return []
    e, make_robot, names = t.evidence, t.make_robot, t.evidence.names
    joints = [j for j in range(len(names)) if "gripper" not in names[j]]
    tries: list[tuple[str, str, int, float, float]] = [
        ("joint_sign", f"{names[j]} counted the other way round", j, -1.0, 0.0)
        for j in joints
    ]
    for degrees in DEGREES_TRIED:
        words = f"{degrees:+d} degrees"
        tries += [
            ("calibration", f"{names[j]} {words}", j, 1.0, degrees / DEGREES)
            for j in joints
        ]

    def success(episodes: Sequence[int], j: int, sign: float, offset: float) -> float:
        def change(action: np.ndarray) -> np.ndarray:
            action = action.copy()
            action[:, j] = sign * action[:, j] + offset
            return action

        found = rate(replay(e.demos, make_robot, episodes, change))
        assert found is not None
        return found.rate

    some, all_ = list(t.episodes)[:SOME], list(t.episodes)
    least = max(success(some, 0, 1.0, 0.0) + 0.3, REPLAYS)
    good = [x for x in tries if success(some, *x[2:]) > least]
    again = [(x[0], x[1], success(all_, *x[2:])) for x in good]
    best = sorted((x for x in again if x[2] >= REPLAYS), key=lambda x: -x[2])
    return [x for x in best if x[2] >= best[0][2] - 0.1][:4]


def timing(t: Trials) -> Iterator[Outcome]:
    """Does the arm follow its commands as it did when it was recorded?"""
    why = "no joint moves enough in both"
    found = None
    if not t.evidence.same_joints:
        why = "states and actions are not of the same joints"
    elif t.explained in ("joint_order", "joint_sign", "units"):
        why = f"the commands are of other joints or units: {CAUSES[t.explained]}"
    else:
        found = compared(t)
    if found is None:
        for cause in ("rate", "late_observation"):
            yield Skipped(cause, why)
        return
    later, slower = found
    said = (
        f"joints follow their commands {later:+.0f} ticks later than in the "
        f"demonstrations, and go {100 / slower:.0f} % as far in a tick"
    )
    # Replays move as the demonstrations do; a policy may move otherwise.
    level: Level = "wrong" if t.replayed else "suspect"
    sure: Sure = "likely" if t.replayed else "possible"
    other_rate = slower > SLOWER or slower < 1 / SLOWER  # it changes the lag in ticks
    if later >= LATE and not other_rate:
        yield Finding(
            "late_observation",
            level,
            10 * later / LATE,
            said,
            "the same number of ticks: a policy knows the arm as it was recorded",
            sure,
            "look for a buffer between camera or bus and policy that holds old values; "
            "or execute for late observations: act eval --mode fade --delay N",
        )
    else:
        yield Passed("late_observation", said)
    if other_rate:
        yield Finding(
            "rate",
            level,
            10 * max(slower, 1 / slower) / SLOWER,
            said,
            f"the same within a factor of {SLOWER}; the recording's rate is "
            f"{t.evidence.demos.fps:g} Hz",
            sure,
            f"drive at {t.evidence.demos.fps:g} Hz, or record at the rate at which you "
            "drive",
        )
    else:
        yield Passed("rate", said)


def compared(t: Trials) -> tuple[float, float] | None:
    """Ticks that the arm is later than when recorded, and how many times slower."""
    before = response(t.evidence.episodes, range(9))
    runs = [(x.qpos, x.action) for x in t.replayed or t.all if len(x.qpos) > 12]
    if not runs:
        return None
    now = response(runs, range(9))
    both = before.moves & now.moves & (before.gain > 0.02)
    if not both.any():
        return None
    slower = before.gain[both] / np.maximum(now.gain[both], 1e-3)
    later = now.delay[both] - before.delay[both]
    return float(np.median(later)), float(np.median(slower))


def known_scenes(t: Trials) -> Iterator[Outcome]:
    """Does it succeed on its demonstrations' scenes alone?"""
    known, new = rate(t.known), rate(t.new)
    if known is None or new is None:
        yield Skipped("memorised", "it was not rolled out on both")
        return
    said = f"scenes of the demonstrations: {known}; new ones: {new}"
    apart = known.rate - new.rate
    if apart > KNOWN_ONLY and known.interval[0] > new.interval[1]:
        yield Finding(
            "memorised",
            "wrong",
            10 * apart / KNOWN_ONLY,
            said,
            f"less than {100 * KNOWN_ONLY:.0f} % apart, or within their intervals",
            "certain",
            "more demonstrations from other places (C22), before anything else",
        )
    else:
        yield Passed("memorised", said)


def coverage(t: Trials) -> Iterator[Outcome]:
    """Does it fail where no demonstration began?"""
    demos = t.evidence.demos
    known = [x for x in t.new if x.start is not None and x.success is not None]
    if demos.env_state is None or not known:
        yield Skipped("uncovered", "nobody knows where the objects lay")
        return
    there = demos.env_state[demos.starts]  # (episodes, E)
    width = np.maximum(there.std(0), 1e-3)
    places = np.array([x.start for x in known])
    apart = np.abs((places[:, None] - there) / width).max(2).min(1)  # (trials,)
    won = np.array([x.success for x in known])
    if won.all() or not won.any():
        yield Passed("uncovered", "all trials ended alike")
        return
    lost = float(np.median(apart[~won]))
    rest = max(float(np.median(apart[won])), 0.1)
    said = (
        f"failed trials begin {lost:.2f} deviations from the nearest demonstration, "
        f"successful ones {rest:.2f}"
    )
    enough = (~won).sum() >= LOST
    if enough and lost > UNCOVERED * rest and lost > 0.5:
        yield Finding(
            "uncovered",
            "suspect",
            lost / rest / UNCOVERED,
            said,
            f"less than {UNCOVERED} x as far",
            "possible",
            "record demonstrations that begin where it fails (see the figure)",
        )
    else:
        yield Passed("uncovered", said)


def ensemble(t: Trials) -> Iterator[Outcome]:
    """Are the ensemble's weights nearly even, as the paper's?"""
    run = t.execution
    if run.mode != "ensemble":
        yield Passed("ensemble_weights", f"mode {run.mode}, no ensemble")
        return
    votes = -(-t.evidence.policy.chunk_size // run.every)  # predictions for a tick
    oldest_first = run.order == "oldest_first"
    newest, oldest = (
        float(newest_share(np.array([votes - 1]), m, oldest_first)[0])
        for m in (run.m, -run.m)
    )
    most, which = max((newest, "newest"), (oldest, "oldest"))
    said = (
        f"m = {run.m:g}, {run.order}: of {votes} predictions for a tick the {which} "
        f"one weighs {100 * most:.0f} %"
    )
    if most > UNEVEN / votes:
        yield Finding(
            "ensemble_weights",
            "suspect",
            most * votes / UNEVEN,
            said,
            f"at most {UNEVEN} x an even share, {100 * UNEVEN / votes:.0f} %: m = 0.01 "
            "counted from the oldest (paper, section IV-A) is nearly the plain mean",
            "certain",
            "act eval --mode ensemble --m 0.01 --order oldest_first, beside --mode "
            "receding",
        )
    else:
        yield Passed("ensemble_weights", said)


def motion(t: Trials) -> Iterator[Outcome]:
    """How does it move, and how far does it come, beside its teachers?"""
    demos, trials = t.evidence.demos, t.new or t.known
    if not trials:
        for cause in ("stands_still", "jerk", "phase"):
            yield Skipped(cause, "it was not rolled out")
        return
    taught = [q for q, _ in t.evidence.episodes]
    shown = max(float(np.mean([still(q).mean() for q in taught])), 0.01)
    now = float(np.mean([still(x.qpos).mean() for x in trials if len(x.qpos) > 1]))
    said = (
        f"still in {100 * now:.0f} % of the ticks; demonstrations {100 * shown:.0f} %"
    )
    outcome = rate(trials)
    fails = outcome is not None and outcome.rate < 0.9
    if fails and now > STILL_SHARE * shown and now > 0.3:
        yield Finding(
            "stands_still",
            "note",
            now / shown / STILL_SHARE,
            said,
            f"at most {STILL_SHARE} x the demonstrations' share",
            "certain",
            "pauses of the demonstrations are learnt (C11): longer chunks, or cut them",
        )
    else:
        yield Passed("stands_still", said)
    names = t.evidence.joints(demos.qpos.shape[1])
    angles = ["gripper" not in name for name in names]
    before = float(np.median([jerk(q[:, angles], demos.fps) for q in taught]))
    after = float(np.median([jerk(x.qpos[:, angles], demos.fps) for x in trials]))
    said = f"root mean square jerk {after:.0f} rad/s³; demonstrations {before:.0f}"
    if after > 3 * before:
        yield Finding(
            "jerk",
            "note",
            after / before / 3,
            said,
            "at most 3 x the demonstrations'",
            "certain",
            "act eval --mode ensemble, or --mode fade; and look at the seams",
        )
    else:
        yield Passed("jerk", said)
    grippers = [j for j, name in enumerate(t.evidence.names) if "gripper" in name]
    counts = phases(trials, grippers) if grippers else {}
    if counts:
        listed = ", ".join(f"{n} {where}" for where, n in counts.items())
        yield Finding(
            "phase",
            "note",
            1.0,
            f"failed trials ended: {listed}",
            "no failures",
            "certain",
            "look there first, such as with act eval --policy ... --film failures.mp4",
        )


CHECKS = (timing, replays, known_scenes, coverage, ensemble, motion)
