"""Do the guard bodies keep arms from the table, from themselves and from each other?

    uv run python -m benchmarks.arms.guard_bodies
    uv run python -m benchmarks.arms.guard_bodies --minutes 7
    uv run python -m benchmarks.arms.guard_bodies --arms so100_pair

Random wishes go through the `Governor` into physics: uniform over the joints' ranges
and held for some ticks; and a tenth as many, uniform over ranges twice as wide and held
for up to a second, with which an arm leans on what it has met. The judge is MuJoCo's
own collision detection between the arm's shapes: those of the virtual SO-100 and
SO-101, the convex meshes of the OpenArm v2's maker (v1's model is on no package index).
It knows nothing of the guard's distances; but the virtual SO-101's shapes are boxes as
wide as the guard's, for its meshes are not at hand. What was measured is found again,
so the second line, repeated, does it piece by piece. Writes
data/results/guard_bodies.json, or of other arms guard_bodies_<arms>.json.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any, Literal

import mujoco
import numpy as np
import tyro

from act_minimal.sim.so100.pick_place import PickPlace
from act_minimal.support.files import read_json, write_json
from hardware.openarm.bodies import PILLAR
from hardware.openarm.kinematics import ARMS as OPENARMS
from hardware.openarm.limits import openarm_limits
from hardware.openarm.model import gravity_of, load_alone, places_of
from hardware.openarm.motors import PEAK, gains_of
from hardware.safety.governor import Governor, Limits
from hardware.safety.safe_robot import so100_limits
from hardware.so100.emulator import so101
from hardware.so100.emulator.arm import GRIPPER_RESERVE
from hardware.so100.kinematics import ARMS
from hardware.so100.pair import pair_limits
from hardware.virtual.contacts import DEEP, LASTING, Touch

from ..results import write
from .campaign import KEPT

Name = Literal["so100", "so101", "openarm", "openarm_at_table", "so100_pair"]
USUAL: tuple[Name, ...] = ("so100", "so101", "openarm", "openarm_at_table")
TABLE = 0.40  # m, of the OpenArm's
PAIR_APART = 0.4  # m: two SO-100 that reach each other's elbows
HELD = (1, 1, 2, 4, 8)  # ticks that a wish lasts, one of these
CHUNK = 250  # wishes from one start at the ready pose
LONG, WIDE, FEW = 30, 2.0, 5  # ticks at most, ranges, and wishes from one start
LEANING = 10  # one wish in so many
PROFILE = 39.0, 5.2  # rad/s² and rad/s of a servo's own profile


def so100_alone() -> mujoco.MjSpec:
    """The simulated SO-100 on a table with nothing on it; it collides with itself."""
    spec = mujoco.MjSpec.from_string(PickPlace()._xml())
    spec.delete(spec.body("cube"))
    for geom in spec.worldbody.geoms:
        if geom.name != "table":
            spec.delete(geom)
    return spec


def so101_alone() -> mujoco.MjSpec:
    """The virtual SO-101; the boxes of upper arm and wrist are judged too."""
    spec = mujoco.MjSpec.from_string(so101.scene_xml())
    for pair in spec.excludes:
        spec.delete(pair)
    return spec


def pair_alone() -> mujoco.MjSpec:
    """Two simulated SO-100 on one table."""
    spec = so100_alone()
    spec.delete(spec.body("base"))
    for side, x in (("left", PAIR_APART / 2), ("right", -PAIR_APART / 2)):
        frame = spec.worldbody.add_frame(pos=[x, 0, 0])
        frame.attach_body(so100_alone().body("base"), f"{side}_", "")
    return spec


class SOArm:
    """A SO-100 or SO-101, or two: position servos with a motion profile, at 30 Hz."""

    period, steps = 1 / 30, 10

    def __init__(self, name: str):
        model = "so101" if name == "so101" else "so100"
        self.arm = ARMS[model]
        pair = name == "so100_pair"
        self.limits = pair_limits(PAIR_APART) if pair else so100_limits(model)
        spec = pair_alone() if pair else so100_alone()
        spec = so101_alone() if name == "so101" else spec
        for body in spec.bodies[1:]:
            for geom in body.geoms:
                geom.contype, geom.conaffinity = 1, 1
        spec.geom("table").contype, spec.geom("table").conaffinity = 1, 1
        for side in ("left_", "right_") if pair else ("",):
            spec.add_exclude(bodyname1=f"{side}base", bodyname2=f"{side}shoulder")
        self.model = spec.compile()
        self.model.opt.timestep = self.period / self.steps
        self.data = mujoco.MjData(self.model)
        self.jaws = list(self.limits.grippers)
        self._force = self.model.actuator_forcerange[:, 1].copy()
        self._force[self.jaws] *= GRIPPER_RESERVE[model]

    def _angles(self, state: np.ndarray) -> np.ndarray:
        angles, (closed, opened) = np.array(state, float), self.arm.ranges[5]
        angles[self.jaws] = closed + angles[self.jaws] * (opened - closed)
        return angles

    def put(self, state: np.ndarray) -> None:
        """At rest, in a state (A,)."""
        self._goal = self.data.qpos[:] = self._angles(state)
        self._speed = np.zeros(len(state))
        mujoco.mj_forward(self.model, self.data)

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """State and load, (A,) each."""
        state, (closed, opened) = self.data.qpos.copy(), self.arm.ranges[5]
        state[self.jaws] = (state[self.jaws] - closed) / (opened - closed)
        return state, self.data.actuator_force / self._force

    def send(self, target: np.ndarray) -> None:
        self._target = self._angles(target)

    def step(self) -> None:
        dt, (most, top) = self.model.opt.timestep, PROFILE
        way = self._target - self._goal
        speed = np.minimum(top, np.sqrt(2 * most * np.abs(way))) * np.sign(way)
        self._speed += np.clip(speed - self._speed, -most * dt, most * dt)
        step = self._speed * dt
        there = (np.abs(step) >= np.abs(way)) & (step * way >= 0)
        self._goal = np.where(there, self._target, self._goal + step)
        self._speed = np.where(there, 0.0, self._speed)
        self.data.ctrl[:] = self._goal
        mujoco.mj_step(self.model, self.data)


class OpenArms:
    """Two OpenArms v2 with the maker's meshes: springs that carry their weight, 50 Hz.

    `table` is its top, m; None for no table.
    """

    period, steps = 1 / 50, 10

    def __init__(self, table: float | None):
        self.limits, self.arm = openarm_limits("v2", table), OPENARMS["v2"]
        alone = load_alone()
        self.places = places_of(alone, self.arm)
        self._gravity = gravity_of(alone, self.arm)
        spec = load_spec()
        ground = self.limits.box_low[2] if table is not None else 0.0
        spec.worldbody.add_geom(
            name="table",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[2, 2, 0.1],
            pos=[0, 0, ground],
        )
        pillar = spec.worldbody.add_body(name="pillar")
        pillar.add_geom(
            name="pillar",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.07, PILLAR["v2"], 0.31],
            pos=[-0.03, 0, 0.31],
        )
        for side in ("right", "left"):  # the elbow's own range keeps these apart
            names = [f"openarm_{side}_link{i}" for i in (3, 5)]
            spec.add_exclude(bodyname1=names[0], bodyname2=names[1])
        self.model = spec.compile()
        self.model.opt.timestep = self.period / self.steps
        self.model.actuator_gainprm[:] = self.model.actuator_biasprm[:] = 0.0
        self.data = mujoco.MjData(self.model)
        gains = gains_of("firm")
        self._kp, self._kd = np.tile(gains.kp, 2), np.tile(gains.kd, 2)
        self._peak = np.tile(PEAK, 2)

    def put(self, state: np.ndarray) -> None:
        """At rest, in a state (16,)."""
        self.places.set_angles(self.data.qpos, self.arm.angles_of(state))
        self.data.qvel[:] = 0.0
        self._torque = np.zeros(16)
        mujoco.mj_forward(self.model, self.data)

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """State and load, (16,) each."""
        state = self.arm.state_of(self.places.angles_of(self.data.qpos))
        return state, self._torque / self._peak

    def send(self, target: np.ndarray) -> None:
        """Where the springs pull to, (16,)."""
        self._target = self.arm.angles_of(target)
        self._weight = self._gravity(self.measure()[0])

    def step(self) -> None:
        away = self._target - self.places.angles_of(self.data.qpos)
        speed = self.places.velocities_of(self.data.qvel)
        torque = self._kp * away - self._kd * speed + self._weight
        self._torque = np.clip(torque, -self._peak, self._peak)
        self.data.qfrc_applied[self.places.dof] = self._torque * self.places.ratio
        mujoco.mj_step(self.model, self.data)


def load_spec() -> mujoco.MjSpec:
    """The maker's model of both arms, on their pedestal."""
    from openarm_mujoco import v2

    from hardware.openarm.kinematics import SHOULDERS

    spec = mujoco.MjSpec.from_file(v2.openarm_bimanual_xml())
    for body in spec.worldbody.bodies:
        body.pos = body.pos + SHOULDERS
    return spec


@cache
def arm_of(name: str) -> SOArm | OpenArms:
    """An arm by its name."""
    if name.startswith("so"):
        return SOArm(name)
    return OpenArms(TABLE if name == "openarm_at_table" else None)


def moving(limits: Limits, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A wish (A,), and for how many ticks."""
    return rng.uniform(limits.low, limits.high), int(rng.choice(HELD))


def leaning(limits: Limits, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A wish (A,) that may be far outside, and for how many ticks."""
    middle, half = (limits.low + limits.high) / 2, (limits.high - limits.low) / 2
    wish = middle + WIDE * half * rng.uniform(-1, 1, len(half))
    return wish, int(rng.integers(1, LONG))


WISHES = {"moving": (moving, CHUNK), "leaning": (leaning, FEW)}


def chunk(name: str, kind: str, seed: int, n: int) -> dict[str, Any]:
    """`n` wishes, from the ready pose on."""
    begin, arm = time.perf_counter(), arm_of(name)
    limits: Limits = arm.limits
    wish_of, in_a_row = WISHES[kind]
    rng, judge = np.random.default_rng([seed, 8]), Touch()
    governor, seconds, ticks, held_back = Governor(limits, arm.period), 0.0, 0, 0
    for place in range(n):
        if place % in_a_row == 0:
            arm.put(limits.ready)
            governor.reset(limits.ready)
        wish, lasts = wish_of(limits, rng)
        for _ in range(lasts):
            state, load = arm.measure()
            start = time.process_time()
            target, kinds = governor.allow(wish, state, load)
            seconds += time.process_time() - start
            held_back += bool({"workspace", "collision", "press"} & set(kinds))
            ticks += 1
            arm.send(target)
            for _ in range(arm.steps):
                arm.step()
                judge.look(arm.model, arm.data)
    return judge.to_json() | {
        "n": n,
        "ticks": ticks,
        "held_back": held_back,
        "governor_seconds": seconds,
        "seconds": time.perf_counter() - begin,
    }


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Many chunks as one."""
    ticks = sum(row["ticks"] for row in rows)
    worst = max(rows, key=lambda row: row["deepest"])
    return {
        "n": sum(row["n"] for row in rows),
        "ticks": ticks,
        "held_back": sum(row["held_back"] for row in rows) / ticks,
        "deepest_mm": 1000 * worst["deepest"],
        "deepest_where": worst["where"],
        "deeper_than_2_mm": sum(row["deepest"] > DEEP for row in rows),
        "strongest_on_table_N": max(row["strongest"] for row in rows),
        "longest_over_15_N_s": max(row["pressed"] for row in rows),
        "over_15_N_for_0.3_s": sum(row["pressed"] > LASTING for row in rows),
        "allow_ms": 1000 * sum(row["governor_seconds"] for row in rows) / ticks,
    }


def main(
    arms: tuple[Name, ...] = USUAL,
    n: int = 100_000,
    seed: int = 0,
    jobs: int = 2,
    minutes: float | None = None,
) -> None:
    """Measure; write the result once all is there.

    What was measured is kept, and found again by the next call.

    Args:
        arms: which; the two OpenArm scenes share the wishes.
        n: wishes an arm.
        seed: of the first chunk; each has its own.
        jobs: processes.
        minutes: no chunk is begun later; None for no end.
    """
    begin, path = time.monotonic(), KEPT / "guard_bodies.json"
    kept: dict[str, Any] = read_json(path) if path.exists() else {}
    wanted = []
    for name in arms:
        most = n // 2 if name.startswith("openarm") else n
        for kind, wishes in (("moving", most), ("leaning", most // LEANING)):
            sizes = [min(CHUNK, wishes - done) for done in range(0, wishes, CHUNK)]
            wanted += [(name, kind, seed + i, size) for i, size in enumerate(sizes)]
    missing = [one for one in wanted if str(one) not in kept]
    with ProcessPoolExecutor(jobs) as pool:
        for place in range(0, len(missing), 8):
            if minutes is not None and time.monotonic() - begin > 60 * minutes:
                break
            some = missing[place : place + 8]
            rows = pool.map(chunk, *zip(*some, strict=True))
            kept |= {str(one): row for one, row in zip(some, rows, strict=True)}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, kept)
    table: dict[str, dict[str, Any]] = {kind: {} for kind in WISHES}
    for name in arms:
        for kind, rows_of in table.items():
            ours = [str(one) for one in wanted if one[:2] == (name, kind)]
            if rows := [kept[one] for one in ours if one in kept]:
                rows_of[name] = together(rows)
                print(name, kind, rows_of[name], flush=True)
    if any(str(one) not in kept for one in wanted):
        print(f"{len(kept)} of {len(wanted)} chunks are kept in {path}; call again")
        return
    seconds = sum(kept[str(one)]["seconds"] for one in wanted)
    content = {"n": n, "seeds": [seed], "wishes_a_chunk": CHUNK}
    content |= {"arms": table["moving"], "leaning": table["leaning"]}
    name = "guard_bodies" if arms == USUAL else f"guard_bodies_{'_'.join(arms)}"
    write(name, seconds, content)


if __name__ == "__main__":
    tyro.cli(main)
