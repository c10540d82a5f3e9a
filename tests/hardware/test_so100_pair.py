"""Two SO-100 as one robot of 12 joints: driver, guard, and all the way to a policy."""

import contextlib
import json
import os

import numpy as np
import pytest

from act_minimal.checkpoint import load_policy
from act_minimal.episodes import list_episodes, load_episode
from act_minimal.evaluation import evaluation_scenes
from act_minimal.support.errors import SettingError
from benchmarks.arms.guard_bodies import PAIR_APART, SOArm, chunk
from hardware.deployment import SceneJudge, deploy
from hardware.errors import BusError
from hardware.recording import record_session
from hardware.robots import (
    RobotConfig,
    make_robot,
    plugged_in,
    virtual_arms,
)
from hardware.safety.governor import TOUCHES, Governor
from hardware.safety.stop import EmergencyStop
from hardware.so100.arm import SO100Config
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.service import VirtualArmConfig, VirtualArmService
from hardware.so100.kinematics import LINKS
from hardware.so100.pair import SIDES, SO100Pair, pair_guard, pair_limits
from hardware.teleop import Leader, LeaderPair
from hardware.virtual.client import SceneClient

from ..clocks import eventually
from ..commands import run_program
from .virtual_arms import served

posix = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


# ---------------------------------------------------------------- driver


@pytest.fixture
def services(tmp_path):
    """Two virtual arms, mounted differently."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                served(VirtualArmService(VirtualArmConfig(tmp_path / side, seed=seed)))
            )
            for seed, side in enumerate(SIDES)
        ]


@pytest.fixture
def pair(services, tmp_path):
    settings = []
    for service in services:
        file = tmp_path / f"{service.config.port.name}.json"
        save_calibration(file, service.calibration)
        settings.append(SO100Config(str(service.config.port), file))
    pair = SO100Pair(*settings)
    yield pair
    with contextlib.suppress(BusError):
        pair.close()


@posix
def test_the_left_arm_comes_first_each_with_its_own_calibration(services, pair):
    pair.connect()
    state, velocity, health = pair.measure()
    angles = [service.arm.data.qpos[:5] for service in services]
    assert state[:5] == pytest.approx(angles[0], abs=0.01)
    assert state[6:11] == pytest.approx(angles[1], abs=0.01)
    assert velocity.shape == health.load.shape == health.voltage.shape == (12,)
    assert pair.joints[0] == "left_shoulder_pan"
    assert pair.joints[11] == "right_gripper"
    goal = state.copy()
    goal[[4, 10]] += 0.2, -0.3
    pair.send(goal)
    for service, wanted in zip(services, (goal[4], goal[10]), strict=True):

        def told(service=service):
            goals = np.array([servo.goal() for servo in service.arm.servos])
            return service.arm.joints_of(goals)[4]

        assert eventually(lambda: abs(told() - wanted) < 0.01)  # noqa: B023


@posix
def test_an_arm_that_is_missing_leaves_the_other_without_torque(services, pair):
    services[1].wire.faults.set({"missing": 3})
    with pytest.raises(BusError, match=r"servo 3 \(elbow_flex\) on .*right"):
        pair.connect()
    assert not pair.torque
    assert not any(servo.torque_on for servo in services[0].arm.servos)


@posix
def test_one_arm_that_is_lost_keeps_no_torque_on_the_other(services, pair):
    pair.connect()
    services[0].wire.faults.set({"no_power": True})
    with pytest.raises(BusError, match=r"on .*left did not confirm"):
        pair.soften(0.2)
    assert pair.torque  # nobody knows about the left one
    assert not any(servo.torque_on for servo in services[1].arm.servos)
    services[0].wire.faults.set({"no_power": False})
    pair.disable()
    assert not pair.torque


@posix
def test_health_is_of_twelve_servos(services, pair):
    pair.connect()
    services[1].arm.servos[3].poke("Present_Temperature", 71)
    services[1].arm.servos[3].temperature = 71.0
    assert pair.measure()[2].temperature[9] >= 60
    assert (pair.measure()[2].temperature[:9] < 60).all()


# ---------------------------------------------------------------- guard


@pytest.mark.quick
def test_the_guards_frames_are_those_of_two_arms_on_one_table():
    arm = SOArm("so100_pair")
    rng, limits = np.random.default_rng(0), arm.limits
    for state in rng.uniform(limits.low, limits.high, (20, 12)):
        arm.put(state)
        places, turns = limits.guard.frames_of(state)
        for index, name in enumerate(f"{s}_{link}" for s in SIDES for link in LINKS):
            body = arm.data.body(name)
            assert places[index] == pytest.approx(body.xpos, abs=1e-4), name
            assert turns[index] == pytest.approx(body.xmat.reshape(3, 3), abs=1e-3)


@pytest.mark.quick
def test_random_wishes_bring_the_arms_into_nothing():
    found = chunk("so100_pair", "moving", 3, 60)
    assert found["deepest"] < 0.002, found["where"]
    assert found["pressed"] < 0.3
    assert found["held_back"] > 0


@pytest.mark.quick
@pytest.mark.parametrize("held", [0, 1])
def test_an_arm_comes_away_from_the_table_though_the_other_may_not_go_on(held):
    """Else it would press on it for as long as the other one is told to go on."""
    limits = pair_limits(PAIR_APART)
    governor = Governor(limits, 1 / 30)
    down, away = (slice(0, 6), slice(6, 12))[:: 1 - 2 * held]
    start = np.tile([0.0, 0.05, -0.15, 0.6, 0.0, 0.5], 2)  # both at the table

    def clear(target):
        alone = limits.ready.copy()
        alone[away] = target[away]
        return governor.clearance(alone).min()

    assert 0 < clear(start) < TOUCHES
    governor.reset(start)
    wish = start.copy()
    wish[down] = [0.0, 1.2, -0.3, 0.6, 0.0, 0.5]  # far under it
    wish[away] -= [0, 0.6, 0, 0, 0, 0]  # the shoulder lifts it
    where = start.copy()
    for _ in range(60):
        where, kinds = governor.allow(wish, where)
        assert "workspace" in kinds
    assert clear(where) > TOUCHES
    assert where[down] == pytest.approx(start[down], abs=0.01)
    assert governor.clearance(where).min() >= 0


@pytest.mark.quick
def test_an_arm_that_is_behind_does_not_let_the_other_be_so_near_the_table():
    limits = pair_limits(PAIR_APART)
    left, right = slice(0, 6), slice(6, 12)
    start, wish = limits.ready.copy(), limits.ready.copy()
    start[left] = [0.0, -0.02, -0.14, 0.6, 0.0, 0.5]  # 25 mm over the table
    wish[left] = [0.0, 1.2, -0.3, 0.6, 0.0, 0.5]
    for behind in (0.0, 0.19):
        governor, measured = Governor(limits, 1 / 30), start.copy()
        governor.reset(start)
        measured[1] -= 0.15
        measured[right] -= behind
        target, _ = governor.allow(wish, measured)
        assert target[left] == pytest.approx(start[left], abs=1e-6)
    measured[1] += 0.15  # it has caught up, and stands
    goes_on = [governor.allow(wish, measured)[0][1] for _ in range(3)]
    assert goes_on[-1] > start[1] + 1e-3


class Near:
    """Poses of a pair whose arms are near each other, and which way is nearer."""

    def __init__(self, count: int, own: float, low: float, high: float):
        self.limits = limits = pair_limits(PAIR_APART)
        between = [a[0] != b[0] for a, b in limits.guard.pairs]  # left_ and right_
        self.between = np.r_[[False] * limits.guard.in_workspace, between]
        self.rng = np.random.default_rng(0)
        poses = self.rng.uniform(limits.low, limits.high, (count, 12))
        near, others = self.apart(poses), self.clear(poses)[:, ~self.between].min(1)
        self.poses = poses[(others > own) & (near > low) & (near < high)]

    def clear(self, state):
        limits = self.limits
        return limits.guard.clearance(state, limits.box_low, limits.box_high)

    def apart(self, state):
        """How clear the arms are of each other, m."""
        return self.clear(state)[..., self.between].min(-1)

    def nearer(self, pose):
        """(12,) of each joint but the jaws, which way the arms come nearer, or 0."""
        slope = (self.apart(pose + 1e-4 * np.eye(12)) - self.apart(pose)) / 1e-4
        slope[[5, 11]] = 0.0
        return -np.sign(slope) * (np.abs(slope) > 0.02)


@pytest.mark.quick
def test_an_arm_comes_no_nearer_to_one_that_is_behind():
    near = Near(6000, own=0.05, low=0.012, high=0.03)
    tried = 0
    for pose in near.poses[:40]:
        way = near.nearer(pose)
        if not (way[:6].any() and way[6:].any()):
            continue
        governor, measured = Governor(near.limits, 1 / 30), pose.copy()
        governor.reset(pose)
        measured[:6] -= 0.15 * way[:6]
        wish = np.clip(pose + way, near.limits.low, near.limits.high)
        target, _ = governor.allow(wish, measured)
        assert near.apart(target) > near.apart(pose) - 1e-3
        tried += 1
    assert tried > 8


@pytest.mark.quick
def test_an_arm_does_not_meet_one_that_is_slow_or_stands():
    """Its target is elsewhere, and yet it is there."""
    near = Near(9000, own=0.003, low=0.02, high=0.058)
    limits, least = near.limits, []
    for pose in near.poses[:20]:
        wish = near.rng.uniform(limits.low, limits.high)
        wish[6:] = np.clip(pose + 1.5 * near.nearer(pose), limits.low, limits.high)[6:]
        governor, measured = Governor(limits, 1 / 30), pose.copy()
        governor.reset(pose)
        follows = np.repeat([near.rng.choice([0.0, 0.04, 0.1]), 0.4], 6)  # a tick
        for _ in range(16):
            target, _ = governor.allow(wish, measured)
            measured = measured + follows * (target - measured)
            least.append(near.apart(measured))
    assert min(least) > -0.006  # of the 20 mm that they keep between them


@pytest.mark.quick
def test_without_the_guard_the_same_arms_meet():
    """So the test above sees what it shall see."""
    arm, rng = SOArm("so100_pair"), np.random.default_rng(0)
    depths = [0.0]
    for state in rng.uniform(arm.limits.low, arm.limits.high, (300, 12)):
        arm.put(state)
        for contact in arm.data.contact:
            bodies = arm.model.geom_bodyid[contact.geom]
            sides = {arm.model.body(body).name.partition("_")[0] for body in bodies}
            if sides == {"left", "right"}:
                depths.append(-contact.dist)
    assert max(depths) > 0.01  # m


@pytest.mark.quick
@pytest.mark.parametrize("apart", [0.2, PAIR_APART, 1.0])
def test_a_pair_can_rest_and_be_ready(apart):
    limits = pair_limits(apart)
    box = limits.box_low, limits.box_high
    for pose in (limits.ready, limits.rest):
        assert pair_guard(apart).clearance(pose, *box).min() > 0


# ---------------------------------------------------------------- commands


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"port": "/dev/a,/dev/b"}, "apart is not given"),
        ({"port": "/dev/a", "apart": 0.5}, "port is '/dev/a', expected the left arm's"),
        ({"port": "/dev/a,/dev/a", "apart": 0.5}, "expected the left arm's"),
    ],
)
def test_what_a_pair_needs_is_said(changes, says):
    config = RobotConfig(robot="so100_pair", **changes)
    with pytest.raises(SettingError, match=says):
        make_robot(config, (96, 128), EmergencyStop())


@pytest.mark.quick
def test_an_unknown_camera_of_a_virtual_pair_is_refused():
    config = RobotConfig("virtual", "so100_pair", cameras=("top=0",))
    with (
        pytest.raises(SettingError, match="a virtual so100_pair has left_top, left_wr"),
        plugged_in(config),
    ):
        pass


class Waving:
    """A source: the wrists turn, from where the arms are."""

    def __init__(self):
        self.tick, self.start = 0, None

    def wish(self, here):
        if self.start is None:
            self.start = here.copy()
        self.tick += 1
        wish = self.start.copy()
        wish[[4, 10]] += 0.01 * self.tick, -0.02 * self.tick
        return wish


@posix
def test_a_pair_records_trains_and_deploys(tmp_path):
    """On two virtual arms, each of which has a cube of its own."""
    with contextlib.ExitStack() as stack:
        arms = virtual_arms(
            "so100_pair",
            tmp_path / "arms",
            "so100_pick_place",
            calibration=tmp_path / "arms.json",
        )
        ports = [stack.enter_context(arm).port for arm in arms]
        config = RobotConfig(
            ",".join(ports),
            "so100_pair",
            calibration=tmp_path / "arms.json",
            cameras=(f"right_wrist=virtual:{ports[1]}#wrist",),
            objects=f"virtual:{','.join(ports)}",
            apart=1.0,
        )
        robot = make_robot(config, (48, 64), EmergencyStop())
        robot.connect()
        stack.callback(robot.close)
        robot.go(robot.limits.ready)
        record_session(
            robot,
            Waving(),
            tmp_path / "demos",
            2,
            prepare=lambda number: True,
            over=lambda tick: tick == 29,
            verdict=lambda: "keep",
            cameras=robot.cameras,
        )
        done = run_program(
            tmp_path, "train --data demos --out pair --cameras --steps 20"
        )
        assert done.returncode == 0, done.stderr
        policy = load_policy(tmp_path / "pair")
        judge = SceneJudge(ports, evaluation_scenes(0, 1))
        stack.callback(judge.close)
        tally = deploy(policy, robot, judge, trials=1, seconds=1.0)
        laid = [arm.scene.look()["objects"] for arm in arms]
    episodes = [load_episode(path) for path in list_episodes(tmp_path / "demos")]
    assert [e.action.shape for e in episodes] == [(30, 12)] * 2
    assert json.loads(episodes[0].attributes["joints"])[6] == "right_shoulder_pan"
    turned = episodes[0].qpos[-1] - episodes[0].qpos[0]
    assert turned[4] > 0.1
    assert turned[10] < -0.3
    assert episodes[0].env_state.shape == (30, 14)
    assert episodes[0].images["right_wrist"].std() > 5
    assert policy.config.action_dim == 12
    assert tally.trials[0].stopped == ""
    assert tally.trials[0].ticks == 30
    assert np.abs(np.subtract(*laid)).max() > 0.01  # the right cube lies elsewhere


@posix
def test_two_leaders_move_a_pair(tmp_path):
    with contextlib.ExitStack() as stack:
        leaders = []
        for seed, side in enumerate(SIDES):
            config = VirtualArmConfig(tmp_path / side, leader=True, seed=seed)
            service = stack.enter_context(served(VirtualArmService(config)))
            save_calibration(tmp_path / f"{side}.json", service.calibration)
            leaders.append(Leader(str(config.port), tmp_path / f"{side}.json"))
            with SceneClient(config.port) as scene:
                scene.put(np.array([0.3 - seed, -1.5, 1.5, 0.5, 0.0, 0.5]))
        pair = LeaderPair(leaders)
        pair.open()
        wish = pair.wish(np.zeros(12))
        pair.close()
    assert wish[[0, 6]] == pytest.approx([0.3, -0.7], abs=0.05)
