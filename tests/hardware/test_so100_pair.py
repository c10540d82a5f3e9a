"""Two SO-100 as one robot of 12 joints: driver, guard, and all the way to a policy."""

import contextlib
import json
import os

import numpy as np
import pytest

from act_minimal.episodes import list_episodes, load_episode
from act_minimal.support.errors import SettingError
from benchmarks.arms.guard_bodies import PAIR_APART, SOArm, chunk
from hardware.errors import BusError
from hardware.robots import (
    RobotConfig,
    make_robot,
    parse_cameras,
    plugged_in,
    virtual_arms,
)
from hardware.safety.stop import EmergencyStop
from hardware.so100.arm import SO100Config
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.service import VirtualArmConfig, VirtualArmService
from hardware.so100.kinematics import LINKS
from hardware.so100.pair import SIDES, SO100Pair, pair_guard, pair_limits

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
    assert pair.torque  # of whom nobody knows
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
    found = chunk("so100_pair", 3, 60)
    assert found["deepest"] < 0.002, found["where"]
    assert found["pressed"] < 0.3
    assert found["held_back"] > 0


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


def run(folder, line):
    done = run_program(folder, line)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@posix
def test_a_pair_records_trains_and_deploys(tmp_path):
    """Two virtual arms, led by two virtual leaders; then a policy drives both."""
    with contextlib.ExitStack() as stack:
        for name, leader, seed in (("arms", False, 0), ("leaders", True, 5)):
            for arm in virtual_arms(
                "so100_pair",
                tmp_path / name,
                "so100_pick_place",
                leader=leader,
                seed=seed,
            ):
                stack.enter_context(arm)
        run(
            tmp_path,
            "record --robot so100_pair --port arms_left,arms_right --apart 1 "
            "--calibration arms.json --leader leaders_left,leaders_right "
            "--leader-calibration leaders.json --cameras "
            "left_top=virtual:arms_left#top --objects virtual:arms_left,arms_right "
            "--out demos --n 2 --scenes 0 --live -1",
        )
        eyes = parse_cameras((f"x=virtual:{tmp_path}/arms_right#wrist",), (48, 64))
        eyes["x"].open()
        assert eyes["x"].read().image.std() > 5
        eyes["x"].close()
    episodes = [load_episode(path) for path in list_episodes(tmp_path / "demos")]
    assert [e.action.shape[1] for e in episodes] == [12, 12]
    assert json.loads(episodes[0].attributes["joints"])[6] == "right_shoulder_pan"
    # Both cubes were moved, and not in the same way.
    cubes = np.array([e.env_state[0] - e.env_state[-1] for e in episodes])
    assert np.abs(cubes[:, [0, 7]]).min() > 0.02
    assert np.abs(cubes[:, :7] - cubes[:, 7:]).max() > 0.02
    run(
        tmp_path,
        "train --data demos --out runs/pair --cameras --chunk-size 20 --steps 20",
    )
    said = run(
        tmp_path,
        "deploy --policy runs/pair --robot so100_pair --port virtual --scenes 0 "
        "--trials 1 --seconds 2 --live -1 --json",
    )
    tally = json.loads(said)
    assert tally["n"] == 1
    assert tally["trials"][0]["stopped"] == ""
    assert tally["trials"][0]["ticks"] == 60
