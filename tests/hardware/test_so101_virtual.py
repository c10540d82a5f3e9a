"""The virtual SO-101: its body against the maker's, its servos, limits and port."""

import os

import mujoco
import numpy as np
import pytest

from act_minimal.sim import World
from act_minimal.sim.world import start
from act_minimal.support.errors import SettingError, UserError
from hardware.cameras import CameraConfig
from hardware.driver import opened
from hardware.robots import VIRTUAL, RobotConfig, make_camera, plugged_in
from hardware.safety.safe_robot import so100_limits
from hardware.so100.arm import IDS, servo_bus
from hardware.so100.calibration import load_calibration
from hardware.so100.emulator.service import VirtualArmConfig, assemble
from hardware.so100.emulator.so101 import HOME, OVERLAP, AloneSO101
from hardware.so100.kinematics import JOINTS, SO101
from hardware.virtual.client import SceneClient

from ..commands import start_program
from .virtual_arms import so100_in_memory

LIMITS = so100_limits("so101")


def at(joints):
    """The model with its joints there."""
    model = AloneSO101().model()
    data = mujoco.MjData(model)
    data.qpos[:] = joints
    mujoco.mj_forward(model, data)
    return model, data


# Joint angles (rad); the maker's `gripper` (m) and `gripperframe` (m, wxyz) there.
PLACES = """
0 0 0 0 0 0  .293235 -.000178 .234370
    .391362 -.000011 .226469  .706897 .017209 -.706897 -.017209
.3 -.5 .4 .6 -.7 .5  .218701 -.055825 .218162
    .299793 -.075448 .165908  .744520 .113497 -.497399 -.430585
-.8 .7 -.9 1 1.2 1.2  .246638 .213706 .172727
    .298000 .256107 .100231  .519499 -.065697 -.370143 .767332
1.2 -1.2 1.1 -.4 2 0  .083222 -.114661 .231422
    .107121 -.196151 .281220  .474606 -.860055 .004183 .187180
-1.5 .2 1 1.3 -2.2 1.7  .045024 .084759 .060949
    .033391 .009643 -.001611  .832090 -.427583 -.133929 -.326898
"""


@pytest.mark.quick
@pytest.mark.parametrize("row", np.array(PLACES.split(), float).reshape(5, 16))
def test_the_body_is_the_makers(row):
    joints, gripper, tip, turn = np.split(row, (6, 9, 12))
    _, data = at(joints)
    assert data.body("gripper").xpos == pytest.approx(gripper, abs=1e-5)
    assert data.site("tcp").xpos == pytest.approx(tip, abs=1e-5)
    assert SO101.tip_of(joints) == pytest.approx(tip, abs=1e-5)
    assert np.abs(data.body("gripper").xquat @ turn) == pytest.approx(1, abs=1e-6)


@pytest.mark.quick
def test_the_weight_and_the_strength_are_the_makers():
    model, _ = at(HOME)
    assert model.body_subtreemass[2] == pytest.approx(0.485, abs=1e-4)  # what pan moves
    assert model.actuator_forcerange[:, 1] == pytest.approx(3.35)
    assert model.dof_armature == pytest.approx(0.028)
    assert [model.joint(i).name for i in range(6)] == list(JOINTS)
    assert model.jnt_range == pytest.approx(SO101.ranges)


@pytest.mark.quick
def test_its_bodies_collide_with_the_table_and_each_other():
    def touching(joints):
        model, data = at(joints)
        pairs = ((c.geom1, c.geom2) for c in data.contact)
        return {(model.geom(a).name, model.geom(b).name) for a, b in pairs}

    assert touching(np.zeros(6)) == set()
    assert touching(HOME) == set()
    rest = LIMITS.rest.copy()
    rest[5] = SO101.ranges[5, 0]
    assert touching(rest) == set()
    low, high = SO101.ranges.T
    folded = np.array([0, low[1], high[2], high[3], 0, low[5]])
    assert ("table", "gripper") in touching([0, 0.7, 0, high[3], 0, 0])
    assert any("base" in pair or "shoulder" in pair for pair in touching(folded))
    assert not touching(folded) & set(OVERLAP)


def test_the_driver_moves_it_where_it_is_told_and_lays_it_down(tmp_path):
    virtual, robot = so100_in_memory(tmp_path, LIMITS, task="alone", robot="so101")
    robot.connect()
    robot.go(LIMITS.ready)
    assert virtual.data.qpos[:5] == pytest.approx(LIMITS.ready[:5], abs=0.03)
    target = LIMITS.ready + [0.3, 0.2, -0.2, -0.3, 0.4, 0.3]
    for _ in range(30):
        seen = robot.observe()["qpos"][0]
        robot.act(target[None])
    assert seen == pytest.approx(target, abs=0.03)
    assert virtual.data.qpos[:5] == pytest.approx(seen[:5], abs=0.02)
    assert virtual.data.site("tcp").xpos == pytest.approx(SO101.tip_of(seen), abs=0.01)
    robot.close()
    assert virtual.data.qpos[:5] == pytest.approx(LIMITS.rest[:5], abs=0.25)
    assert not any(s.torque_on for s in virtual.servos)
    assert virtual.witness.falls == 0
    assert virtual.witness.tip_low[2] > 0


@pytest.mark.parametrize(
    ("robot", "task", "expected"),
    [
        ("so101", "so100_pick_place", "expected one with a so101: alone"),
        ("so100", "openarm_handover", "expected one with a so100: so100_pick_place"),
        ("so100", "alone", "expected one with a so100: so100_pick_place"),
    ],
)
def test_a_scene_without_that_arm_is_refused(robot, task, expected):
    with pytest.raises(SettingError, match=f"task is '{task}', {expected}"):
        assemble(VirtualArmConfig(task=task, robot=robot))


def test_its_scene_is_a_task_like_the_others():
    task = AloneSO101()
    world = World(task, 1)
    world.reset([3])
    goal = np.append(HOME[:5], 0.9)[None]
    for _ in range(20):
        world.step(goal)
    seen = world.observe()
    assert seen["qpos"][0] == pytest.approx(goal[0], abs=0.03)
    assert np.abs(seen["qvel"]).max() < 0.3
    assert seen["env_state"].shape == (1, 0)
    assert not world.success[0]
    assert start(task, 3) == pytest.approx(HOME, abs=0.03)
    held = task.hold(world.qpos)
    assert task.ctrl(task.state(held)) == pytest.approx(held)


@pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")
def test_port_virtual_plugs_one_in_with_cameras_and_calibration():
    with plugged_in(RobotConfig(VIRTUAL, "so101")) as here:
        calibration = load_calibration(here.calibration)
        elbow = calibration.motors["elbow_flex"]
        assert elbow.range_max - elbow.range_min == 2204  # of a SO-100: 2160
        assert [c.partition("=")[0] for c in here.cameras] == ["top", "wrist"]
        camera = make_camera("top", CameraConfig(f"virtual:{here.port}"))
        camera.open()
        assert camera.read().image.std() > 10
        camera.close()
        with SceneClient(here.port) as scene:
            assert len(scene.look()["joints"]) == 6
            with pytest.raises(UserError, match="has no objects to lay"):
                scene.lay(0)
    assert not os.path.exists(here.port)


@pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")
def test_the_command_serves_one_whose_servos_answer(tmp_path):
    line = "virtual --robot so101 --port arm --calibration arm.json"
    process = start_program(tmp_path, line)
    try:
        said = process.stdout.readline()
        assert said.startswith("a virtual SO-101 arm is at arm"), said
        calibration = load_calibration(tmp_path / "arm.json")
        with opened(servo_bus(str(tmp_path / "arm"))) as bus:
            steps = bus.read_all(IDS, "Present_Position")
        state = calibration.state_of(np.array([steps[id] for id in IDS]), SO101)
        assert state[:5] == pytest.approx(HOME[:5], abs=0.05)
        with SceneClient(tmp_path / "arm") as scene:
            scene.ask(stop=True)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["arm.json"]
