"""Lesson 07: what rollouts are worth, how they fail, and what other scenes change."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from act_minimal.checkpoint import load_policy
from act_minimal.evaluation import Evaluation, Rollout, wilson
from act_minimal.policy import Policy
from act_minimal.sim.film import Take, film
from act_minimal.sim.so100.arm import jaw_to_gripper
from act_minimal.sim.so100.changed_scenes import Change, ChangedPickPlace
from act_minimal.sim.so100.pick_place import (
    BIN_CENTRE,
    BIN_INNER,
    RELEASED_JAW,
    PickPlace,
)
from act_minimal.sim.world import World

from ..toolkit.films import Film, show_film
from ..toolkit.paths import ROOT, home
from ..toolkit.plots import COLOURS, MARKERS, figure, label, still_layout, style
from ..toolkit.results import load_result
from ..toolkit.runs import rollouts
from ..toolkit.widgets import Explorer, choice, slider
from .lesson_00 import TASK, Arm

Z95 = 1.96
LIFTED = 0.015  # m above where it lay: the cube is off the table
NEAR_BIN = BIN_INNER  # m from the bin's middle: let go here, it was meant for the bin
KINDS = ("never grasped", "dropped on the way", "missed the bin", "timed out")
STRIDE = 5  # ticks from one picture of the scrubber to the next
CHANGES: dict[str, Change] = {
    "as demonstrated": Change(),
    "camera 2 cm aside": Change(camera=(0.02, 0.0, 0.0)),
    "camera 5 cm aside": Change(camera=(0.05, 0.0, 0.0)),
    "green cube": Change(cube_colour=(0.10, 0.55, 0.20)),
    "cube of 32 mm": Change(cube_size=0.032),
    "half the light": Change(light=(0.5, 0.5, 0.5)),
}


@cache
def checkpoint(kind: str) -> Policy:
    """The policy that comes with the course: "state" or "vision"."""
    return load_policy(ROOT / f"data/checkpoints/so100_pick_place_{kind}")


# --- counting -------------------------------------------------------------------------


def groups_of(found: Evaluation, size: int = 20) -> np.ndarray:
    """Successes in each group of `size` rollouts, in the order of the scenes."""
    success = np.array([r.success for r in found.rollouts])
    whole = len(success) // size * size
    return success[:whole].reshape(-1, size).sum(1)


def groups_figure(found: Evaluation) -> Figure:
    """How often each count of successes appears among groups of one policy's rollouts.

    Crosses: what chance alone gives at the rate of all rollouts together.
    """
    size = 20
    counts = groups_of(found, size)
    low = max(0, min(int(counts.min()), size - 5) - 1)
    k = np.arange(low, size + 1)
    fig, axes = figure(height=2.6)
    seen = (counts == k[:, None]).sum(1)
    axes.bar(k, seen, color=COLOURS[0], width=0.6, label="groups seen")
    chance = [binomial(int(i), size, found.rate) for i in k]
    axes.plot(k, np.array(chance) * len(counts), "x", color="black", label="by chance")
    axes.set_xticks(k)
    label(axes, f"successes of {size}", f"groups (of {len(counts)})")
    axes.legend(loc="upper left")
    return fig


def binomial(k: int, n: int, p: float) -> float:
    """Chance of exactly k successes in n rollouts at success rate p."""
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def believable_figure(successes: int, n: int) -> Figure:
    """Where a rate p is less than 1.96 of its own deviations from what was seen."""
    p = np.linspace(0, 1, 401)
    seen = successes / n
    fig, axes = figure()
    axes.plot(p, np.abs(p - seen), **style(0), label="|p − seen|")
    deviations = Z95 * np.sqrt(p * (1 - p) / n)
    axes.plot(p, deviations, **style(1), label="1.96 deviations at p")
    low, high = wilson(successes, n)
    axes.axvspan(low, high, color=COLOURS[2], alpha=0.15, hatch="//", label="believed")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 0.6)
    label(axes, "true success rate p", "distance", f"{successes} of {n} rollouts")
    axes.legend(loc="upper right")
    return fig


@dataclass(frozen=True)
class Pairs:
    """Two policies on the same scenes: how often both, one or none succeeded."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def p_value(self) -> float:
        """Exact McNemar test: two-sided, only scenes on which the two differ count."""
        n = self.only_a + self.only_b
        tail = sum(
            binomial(i, n, 0.5) for i in range(min(self.only_a, self.only_b) + 1)
        )
        return min(1.0, 2 * tail)

    def __str__(self) -> str:
        return (
            f"both {self.both}, only A {self.only_a}, only B {self.only_b}, "
            f"neither {self.neither} (n = {sum(vars(self).values())}); "
            f"p = {self.p_value:.3f}"
        )


def pair(a: Evaluation, b: Evaluation) -> Pairs:
    """Compare two evaluations on the scenes that both of them saw.

    Raises:
        ValueError: they have no scene in common.
    """
    first, second = ({r.scene: r.success for r in e.rollouts} for e in (a, b))
    scenes = sorted(set(first) & set(second))
    if not scenes:
        raise ValueError("the two evaluations have no scene in common: nothing to pair")
    found = Counter((first[s], second[s]) for s in scenes)
    return Pairs(
        found[True, True], found[True, False], found[False, True], found[False, False]
    )


def difference(a: tuple[int, int], b: tuple[int, int]) -> tuple[float, float, float]:
    """Rate of a minus rate of b, with Newcombe's 95 % interval; scenes may differ.

    Each side's successes and n; Wilson's limits are combined as independent errors are
    (R. G. Newcombe, Statistics in Medicine 1998, method 10).

    Returns:
        difference, lower and upper limit.
    """
    pa, pb = a[0] / a[1], b[0] / b[1]
    (la, ua), (lb, ub) = wilson(*a), wilson(*b)
    low = pa - pb - math.hypot(pa - la, ub - pb)
    high = pa - pb + math.hypot(ua - pa, pb - lb)
    return pa - pb, low, high


# --- seeds ----------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedRow:
    """One recipe: the success rate of each training seed, n rollouts each."""

    name: str
    rates: tuple[float, ...]
    n: int

    @property
    def between(self) -> float:
        """Standard deviation of the rates."""
        return float(np.std(self.rates, ddof=1))

    @property
    def by_chance(self) -> float:
        """What rollouts alone would give, if all seeds had the same true rate."""
        p = np.array(self.rates)
        return float(np.sqrt(np.mean(p * (1 - p)) / self.n))


def seed_rows(folder: Path | None = None) -> list[SeedRow]:
    """Recipes of the committed results that have several seeds."""
    rows = []
    wanted = (
        ("state", "policy", "act", "demonstrator", "state, {}"),
        ("vision", "demonstrations", None, "demonstrations", "vision, {} demos"),
    )
    for name, key, value, show, title in wanted:
        for row in load_result(name, folder)["summary"]:
            if value is None or row[key] == value:
                rates, n = row["each_seed"], row["n"] // len(row["each_seed"])
                rows.append(SeedRow(title.format(row[show]), tuple(rates), n))
    return rows


def seeds_figure(rows: Sequence[SeedRow]) -> Figure:
    """A dot for each training seed, with the interval of its rollouts."""
    fig, axes = figure(height=0.7 + 0.6 * len(rows))
    for i, row in enumerate(rows):
        for seed, rate in enumerate(row.rates):
            low, high = wilson(round(rate * row.n), row.n)
            axes.errorbar(
                [100 * rate],
                [i + 0.2 * (seed - 1)],
                xerr=[[100 * (rate - low)], [100 * (high - rate)]],
                fmt=MARKERS[seed % len(MARKERS)],
                color=COLOURS[seed % len(COLOURS)],
                capsize=3,
                label=f"seed {seed}" if i == 0 else None,
            )
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    fig.legend(loc="outside right upper")
    label(axes, f"success, % (n = {rows[0].n} a dot)", "")
    return fig


# --- failures -------------------------------------------------------------------------


def kind(rollout: Rollout) -> str:
    """Why a rollout failed, one of `KINDS`; "success" if it did not.

    Told from the cube's path alone: was it ever off the table, where was it when it
    was so last, and where is it at the end?
    """
    if rollout.success:
        return "success"
    cube, jaw = rollout.qpos[:, 6:9], rollout.qpos[:, 5]
    up = cube[:, 2] > cube[0, 2] + LIFTED
    if not up.any():
        return "never grasped"
    offset = np.abs(cube[:, :2] - BIN_CENTRE)  # (T, 2)
    inside = (offset[-1] < BIN_INNER / 2).all()
    held = up[-1] and jaw[-1] <= RELEASED_JAW
    if held or (inside and not up[-1]):
        return "timed out"  # still on its way, or in the bin too late
    last = np.flatnonzero(up)[-1]
    near = np.linalg.norm(cube[last, :2] - BIN_CENTRE) < NEAR_BIN
    return "missed the bin" if near else "dropped on the way"


def sort_failures(rollouts: Sequence[Rollout]) -> dict[str, list[Rollout]]:
    """Failed rollouts by kind; every kind is there, perhaps empty."""
    found: dict[str, list[Rollout]] = {name: [] for name in KINDS}
    for rollout in rollouts:
        if (what := kind(rollout)) != "success":
            found[what].append(rollout)
    return found


def kinds_text(found: Evaluation) -> str:
    """How many rollouts failed in which way, in words."""
    sorted_out = sort_failures(found.rollouts)
    said = [f"{len(rows)} {name}" for name, rows in sorted_out.items() if rows]
    return ", ".join(said) or "no failure"


def failures_film(found: Evaluation, policy: Policy, n: int = 3) -> Film:
    """A film of up to `n` failures, one of each kind first; or of successes if none.

    It shows what the policy predicts, too.
    """
    kinds = [rows for rows in sort_failures(found.rollouts).values() if rows]
    depth = max((len(rows) for rows in kinds), default=0)
    failed = [rows[i] for i in range(depth) for rows in kinds if i < len(rows)][:n]
    shown = failed or found.rollouts[:n]
    takes = [Take(kind(r), r.qpos, r.success, policy) for r in shown]
    name = "_".join(f"{r.scene}-{r.ticks}" for r in shown)
    path = home() / "films" / f"failures_{name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    # One view: the executed lesson holds this film, and must stay small.
    film(PickPlace(), takes, path, columns=n, cameras=("scene",), progress=False)
    what = ", ".join(f"{kind(r)} (scene {r.scene})" for r in shown)
    return show_film(
        path,
        f"{len(takes)} of {found.n} rollouts side by side: {what}. A fading ribbon "
        "shows the fingertips' next predicted positions.",
    )


# --- the scrubber ---------------------------------------------------------------------


@dataclass(frozen=True)
class Scrub:
    """A rollout, drawn ahead of time: a picture every `STRIDE` ticks.

    Attributes:
        title: what it was.
        frames: (F, H, W, 3) uint8.
        joints: (T, 6) rad, and gripper opening.
        height: (T,) of the cube over where it lay, m.
        distance: (T,) from the fingers to the cube's middle, m.
        fps: ticks a second.
    """

    title: str
    frames: np.ndarray
    joints: np.ndarray
    height: np.ndarray
    distance: np.ndarray
    fps: float


def scrub(rollout: Rollout) -> Scrub:
    """Draw a rollout from its recorded states."""
    arm, frames, distance = Arm(rollout.scene, (180, 240)), [], []
    with closing(arm.renderer):
        for tick, qpos in enumerate(rollout.qpos):
            arm.put(qpos)
            distance.append(np.linalg.norm(arm.fingers() - arm.cube()))
            if tick % STRIDE == 0:
                frames.append(arm.picture())
    joints = rollout.qpos[:, :6].copy()
    joints[:, 5] = jaw_to_gripper(joints[:, 5])
    return Scrub(
        f"{kind(rollout)} {rollout.scene}",
        np.stack(frames),
        joints,
        rollout.qpos[:, 8] - rollout.qpos[0, 8],
        np.array(distance),
        float(TASK.fps),
    )


def pick_scrubs(found: Evaluation) -> list[Scrub]:
    """One failure of each kind that there is, and one success: at most three."""
    kinds = sort_failures(found.rollouts).values()
    chosen = [rows[0] for rows in kinds if rows]
    good = [r for r in found.rollouts if r.success]
    few = chosen[: 3 - bool(good)] + good[:1]
    return [scrub(r) for r in few]


def scrub_explorer(scrubs: Sequence[Scrub]) -> Explorer:
    """A slider over the time of a rollout: picture, joints, jaw and cube."""
    by_title = {one.title: one for one in scrubs}
    longest = max(len(one.joints) for one in scrubs)
    fig, axes = figure(2, rows=2, width=8.0, height=4.2)
    for one in axes[:, 0]:
        one.remove()
    left = fig.add_subplot(axes[0, 0].get_gridspec()[:, 0])
    middle, right = axes[:, 1]
    picture = left.imshow(scrubs[0].frames[0])
    left.axis("off")
    names = ("pan", "lift", "elbow", "wrist", "roll")
    lines = [
        middle.plot([], [], **style(i), lw=1.2, label=name)[0]
        for i, name in enumerate(names)
    ]
    middle.legend(fontsize=9, ncols=3, loc="upper right")
    label(middle, "", "joints, rad")
    (jaw,) = right.plot([], [], **style(0), label="jaw opening")
    (cube,) = right.plot([], [], **style(1), label="cube's height (1 is 10 cm)")
    right.legend(fontsize=9, loc="upper right")
    label(right, "time, s", "")
    middle.set_ylim(-3.6, 6.0)
    right.set_ylim(-0.3, 1.8)
    cursors = [axes.axvline(0, color="black", lw=1) for axes in (middle, right)]
    shown = ""
    still_layout(fig)
    closing = int(np.argmax(scrubs[0].joints[:, 5]))  # the jaw begins to close

    def draw(tick: int, rollout: str) -> tuple[Figure, str]:
        nonlocal shown
        one = by_title[rollout]
        tick = min(tick, len(one.joints) - 1)
        if shown != rollout:
            seconds = np.arange(len(one.joints)) / one.fps
            for i, line in enumerate(lines):
                line.set_data(seconds, one.joints[:, i])
            jaw.set_data(seconds, one.joints[:, 5])
            cube.set_data(seconds, 10 * one.height)
            for axes in (middle, right):
                axes.set_xlim(0, seconds[-1])
            shown = rollout
        picture.set_data(one.frames[tick // STRIDE])
        for cursor in cursors:
            cursor.set_xdata([tick / one.fps] * 2)
        return fig, (
            f"{rollout}, {tick / one.fps:.1f} s of {len(one.joints) / one.fps:.1f} s: "
            f"the cube is {abs(round(1000 * one.height[tick]))} mm over where it lay, "
            f"{1000 * one.distance[tick]:.0f} mm from the fingers; the jaw is "
            f"{100 * one.joints[tick, 5]:.0f} % open."
        )

    return Explorer(
        "At what moment is the rollout lost, and what did the hand do just before?",
        draw,
        tick=slider(
            "tick",
            0,
            (longest - 1) // STRIDE * STRIDE,
            closing // STRIDE * STRIDE,
            STRIDE,
        ),
        rollout=choice("rollout", list(by_title), scrubs[0].title),
    )


# --- changed scenes -------------------------------------------------------------------


def rollouts_on(
    policy: Policy, change: Change, *, n: int, seed: int = 0, threads: int = 0
) -> Evaluation:
    """Roll a policy out on a changed task, or find these very rollouts."""
    task = ChangedPickPlace(change)
    return rollouts(policy, n=n, seed=seed, task=task, threads=threads)


def trial_of_changes(
    policy: Policy, changes: Mapping[str, Change] = CHANGES, *, n: int, seed: int = 0
) -> dict[str, Evaluation]:
    """The same scenes under each change."""
    return {k: rollouts_on(policy, c, n=n, seed=seed) for k, c in changes.items()}


def views(changes: Mapping[str, Change] = CHANGES) -> Figure:
    """One scene as the camera `top` shows it to a policy under each change."""
    columns = 3
    rows = -(-len(changes) // columns)
    fig, grid = figure(columns, rows=rows, width=8.0, height=2.25 * rows)
    for axes, (name, change) in zip(np.ravel(grid), changes.items(), strict=False):
        world = World(ChangedPickPlace(change))
        try:
            world.reset([0])
            axes.imshow(world.render("top", (96, 128)))
        finally:
            world.close()
        axes.set_title(name, fontsize=10)
    for axes in np.ravel(grid):
        axes.axis("off")
    return fig


def pixels_a_centimetre() -> float:
    """Pixels by which the middle of the cubes' zone moves with the camera by 1 cm."""
    import mujoco

    model = PickPlace().model()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)
    camera = model.camera("top").id
    axes = data.cam_xmat[camera].reshape(3, 3)  # columns: right, up, back
    to_zone = np.array([-0.025, -0.225, 0.0]) - data.cam_xpos[camera]
    depth = -to_zone @ axes[:, 2]  # m along the view
    focal = 96 / 2 / math.tan(math.radians(model.cam_fovy[camera]) / 2)  # pixels
    return float(0.01 * focal / depth)


def outcome_table(found: Mapping[str, Evaluation]) -> str:
    """Name, rate with interval, and kinds of failure, a line each."""
    width = max(map(len, found))
    return "\n".join(f"{k:{width}}  {e}: {kinds_text(e)}" for k, e in found.items())
