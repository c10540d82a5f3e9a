"""Lesson F3: six patients, and what can be measured of each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from act_minimal.checkpoint import load_policy
from act_minimal.diagnosis import response
from act_minimal.diagnosis.diagnose import gather, judge, look, try_out
from act_minimal.diagnosis.evidence import Evidence
from act_minimal.diagnosis.findings import CAUSES
from act_minimal.diagnosis.trials import Trials, rate, replay

from ..toolkit.faults import FAULTS, Fault
from ..toolkit.paths import ROOT
from ..toolkit.plots import COLOURS, figure, label, still_layout, style
from ..toolkit.runs import demonstrations
from ..toolkit.widgets import Explorer, slider, steps

CHECKPOINT = ROOT / "data/checkpoints/so100_pick_place_state"
SCENES = 12
HEALTHY = Fault("none", "arm", ())
# The lot: six of the faults that need neither cameras nor a training of their own.
ELIGIBLE = tuple(f for f in FAULTS if f.base == "state" and not f.trains)
DRAWN = np.random.default_rng(0).permutation(len(ELIGIBLE))[:6]
PATIENTS = dict(zip("ABCDEF", (ELIGIBLE[i] for i in DRAWN), strict=True))


@dataclass(frozen=True)
class Patient:
    """A policy on its arm, with what was measured of both."""

    name: str
    fault: Fault
    evidence: Evidence
    trials: Trials


def admit(name: str) -> Patient:
    """A patient by its letter, or "healthy": 12 replays and 24 rollouts are run."""
    fault = HEALTHY if name == "healthy" else PATIENTS[name]
    policy = load_policy(CHECKPOINT)
    if fault.policy:
        policy = fault.policy(policy)
    evidence = gather(policy, demonstrations(), CHECKPOINT)
    trials = try_out(evidence, fault.robot, fault.execution, n=SCENES)
    return Patient(name, fault, evidence, trials)


def success(patient: Patient) -> str:
    """Replays and rollouts that succeeded."""
    t = patient.trials
    kinds = {
        "demonstrations sent again": t.replayed,
        "the policy on their scenes": t.known,
        "the policy on new scenes": t.new,
    }
    return "\n".join(f"{name}: {rate(trials)}" for name, trials in kinds.items())


def fed_figure(patients: dict[str, Patient], joint: int = 0) -> Figure:
    """A demonstration, and the chunks predicted from ten of its frames."""
    fig, axes = figure(len(patients), width=3.4 * max(2, len(patients)), height=2.6)
    for ax, (name, patient) in zip(np.atleast_1d(axes), patients.items(), strict=True):
        e = patient.evidence
        start, length = e.demos.starts[0], e.demos.lengths[0]
        ax.plot(e.demos.action[start : start + length, joint], color="0.6", lw=3)
        for i in np.flatnonzero(e.frames.episode == 0):
            at = e.frames.tick[i] + np.arange(e.policy.chunk_size)
            ax.plot(at, e.predicted[i, :, joint], color=COLOURS[1], lw=1)
        label(ax, "tick", "shoulder_pan, rad", f"{name}: fed a demonstration")
    return fig


def start_figure(patient: Patient) -> Figure:
    """The joints at the first tick of all trials, beside the demonstrations'."""
    e = patient.evidence
    fig, ax = figure(width=6.4, height=2.6)
    here = e.demos.qpos[e.demos.starts]
    now = np.array([trial.qpos[0] for trial in patient.trials.all])
    names = list(e.demos.arm["joints"])
    for i, (name, q, mark) in enumerate(
        (("demonstrations", here, "o"), ("trials", now, "x"))
    ):
        at = np.arange(len(names)) + 0.2 * i
        ax.errorbar(
            at,
            np.median(q, 0),
            [np.median(q, 0) - q.min(0), q.max(0) - np.median(q, 0)],
            fmt=mark,
            color=COLOURS[i],
            capsize=3,
            label=f"{name}, n = {len(q)}",
        )
    ax.set_xticks(range(len(names)), names, fontsize=7)
    ax.legend(fontsize=7)
    label(ax, "", "first state, rad", f"patient {patient.name}")
    return fig


def pair(patient: Patient, joint: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(T,) state and action of a joint in the first replay, rad."""
    trial = patient.trials.replayed[0]
    return trial.qpos[:, joint], trial.action[:, joint]


def taught(patient: Patient, joint: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(T,) the same when it was recorded."""
    demos = patient.evidence.demos
    cut = slice(demos.starts[0], demos.starts[0] + demos.lengths[0])
    return demos.qpos[cut, joint], demos.action[cut, joint]


def lag(qpos: np.ndarray, action: np.ndarray, most: int = 12) -> int:
    """Ticks by which a joint's states (T,) are behind its actions (T,)."""
    found, _ = response.lag([(qpos[:, None], action[:, None])], most)
    return int(found[0])


def follow_figure(patient: Patient) -> Figure:
    """A joint and its commands, when recorded and now."""
    fig, axes = figure(2, width=7.4, height=2.6)
    kinds = {"recorded": taught(patient), "sent again": pair(patient)}
    for ax, (name, (q, a)) in zip(axes, kinds.items(), strict=True):
        ticks = np.arange(min(len(q), 110))
        ax.plot(ticks, a[: len(ticks)], **style(0), label="action")
        ax.plot(ticks, q[: len(ticks)], **style(1), label="state")
        label(ax, "tick", "elbow_flex, rad", f"patient {patient.name}: {name}")
    axes[0].legend(fontsize=7)
    return fig


def patients_explorer(patients: dict[str, Patient]) -> Explorer:
    """Sliders on patient and joint: fed a demonstration, at the start, following."""
    fig, (fed, start, follow) = figure(3, width=9.0, height=2.8)
    shown, guessed = fed.plot([], [], color="0.6", lw=3)[0], []
    guessed += [fed.plot([], [], color=COLOURS[1], lw=1)[0] for _ in range(12)]
    before = start.plot([], [], "o", color=COLOURS[0], label="demonstrations")[0]
    now = start.plot([], [], "x", color=COLOURS[1], label="trials")[0]
    told, went = (follow.plot([], [], **style(i))[0] for i in range(2))
    label(fed, "tick", "action, rad", "fed a demonstration")
    label(start, "", "first state, rad", "trials begin")
    label(follow, "tick", "action, state, rad", "sent again")
    start.set(xlim=(-0.5, 1.5), xticks=(0, 1), xticklabels=("taught", "trials"))
    still_layout(fig)

    def draw(letter: str, joint: int) -> tuple[Figure, str]:
        e, t = patients[letter].evidence, patients[letter].trials
        first, length = e.demos.starts[0], e.demos.lengths[0]
        action = e.demos.action[first : first + length, joint]
        shown.set_data(np.arange(length), action)
        rows = np.flatnonzero(e.frames.episode == 0)
        for line, i in zip(guessed, rows, strict=False):
            at = e.frames.tick[i] + np.arange(e.policy.chunk_size)
            line.set_data(at, e.predicted[i, :, joint])
        taught_at = e.demos.qpos[e.demos.starts, joint]
        starts = np.array([trial.qpos[0, joint] for trial in t.all])
        before.set_data(np.zeros(len(taught_at)), taught_at)
        now.set_data(np.ones(len(starts)), starts)
        q, a = pair(patients[letter], joint)
        told.set_data(np.arange(len(a)), a)
        went.set_data(np.arange(len(q)), q)
        for ax in (fed, start, follow):
            ax.relim()
            ax.autoscale_view(scalex=ax is not start)
        name = e.demos.arm["joints"][joint]
        return fig, f"Patient {letter}, {name}: n = {len(t.all)} trials."

    return Explorer(
        "Which of the three pictures is not as it should be?",
        draw,
        letter=steps("patient", list(patients), next(iter(patients))),
        joint=slider("joint", 0, 5, 0, 1),
    )


def turned(patient: Patient, joint: int, sign: float, degrees: float) -> str:
    """Replays with a joint's actions turned round, or some degrees added."""

    def change(action: np.ndarray) -> np.ndarray:
        action = action.copy()
        action[:, joint] = sign * action[:, joint] + np.deg2rad(degrees)
        return action

    e, t = patient.evidence, patient.trials
    assert t.make_robot is not None
    again = replay(e.demos, t.make_robot, list(t.episodes)[:6], change)
    return str(rate(again))


def weights(patient: Patient) -> str:
    """How chunks are executed."""
    run = patient.fault.execution
    if run.mode != "ensemble":
        return f"mode {run.mode}: half of each chunk is executed"
    return f"mode ensemble, m = {run.m:g}, counted as {run.order}"


def doctor(patient: Patient) -> str:
    """The first findings of `act diagnose`."""
    found = judge(look(patient.evidence), patient.trials)
    causes = [x for x in found.findings if x.level != "note"][:2]
    if not causes:
        return f"{patient.name}: {found.verdict}"
    lines = [f"{patient.name}: {CAUSES[causes[0].cause]}\n   {causes[0].measured}"]
    lines += [f"   or: {CAUSES[x.cause]}" for x in causes[1:]]
    return "\n".join(lines)


def truth(patients: dict[str, Patient]) -> str:
    """What was done to each."""
    return "\n".join(f"{name}: {p.fault.name}" for name, p in patients.items())


def importances(evidence: Any) -> dict[str, float]:
    """Error with an input of another episode, over the error as it is."""
    from act_minimal.diagnosis.evidence import shuffled

    base = evidence.error(evidence.few)
    return {
        key: evidence.error(evidence.few, shuffled(key)) / base
        for key in ("qpos", "env_state")
    }
