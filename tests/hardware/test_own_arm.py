"""An arm of one's own, the one of docs/bring_your_own.md, wrong in one way each."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from act_minimal.support.errors import SettingError, UserError
from hardware.cameras import CameraConfig, CameraError
from hardware.robots import RobotConfig, make_camera, make_robot
from hardware.safety.stop import EmergencyStop, Stop

from ..clocks import HandClock

pytestmark = pytest.mark.quick
PAGE = Path(__file__).parents[2] / "docs" / "bring_your_own.md"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Makes a robot of the page's arm, changed by some lines of Python."""
    text = PAGE.read_text(encoding="utf-8")
    [arm] = re.findall(r"^```python my_arm.py\n(.*?)^```", text, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def make(lines="", name=f"arm_{tmp_path.name}"):
        name = re.sub(r"\W", "_", name)
        (tmp_path / f"{name}.py").write_text(f"{arm}\n\n{lines}\n", encoding="utf-8")
        config = RobotConfig("usb0", f"{name}:MyArm")
        robot = make_robot(config, (48, 64), EmergencyStop())
        # Its time goes on only when somebody waits: a busy computer makes nothing late.
        bus = SimpleNamespace(clock=HandClock(), close=lambda: None)
        robot.arm.buses = (bus,)
        return robot

    return make


def test_the_pages_arm_is_driven_and_let_go(mine):
    robot = mine()
    robot.connect()
    robot.go(robot.limits.ready)
    assert robot.arm.motors.on
    robot.observe()
    robot.act(robot.limits.ready[None])
    robot.close()
    assert not robot.arm.motors.on


def test_a_driver_that_says_nothing_of_its_torque_loses_it_all_the_same(mine):
    robot = mine("MyArm.start = lambda self: setattr(self.motors, 'on', True)")
    robot.connect()
    robot.close()
    assert not robot.arm.motors.on


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("del MyArm.disable", "lacks disable"),
        ("class MyArm:\n    limits = name = joints = action_dim = 1", "no hardware"),
        ("MyArm.joints = ('base', 'elbow')", "joints has 2 entries, expected its act"),
        (
            "from dataclasses import replace\n"
            "MyArm.limits = replace(MyArm.limits, ready=np.array([0.0, 0.5, 2.0]))",
            r"limits\.ready is a pose in which its boxes",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_touched(mine, lines, says):
    with pytest.raises(SettingError, match=says):
        mine(lines)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("low", np.zeros(1)),
        ("speed", np.array([1.0, np.nan, 1.0])),
        ("speed", -np.ones(3)),
        ("step", 0.5),
        ("high", np.full(3, -9.0)),
        ("ready", np.full(3, 9.0)),
        ("rest", np.array([0.0, np.nan, 0.0])),
        ("box_low", np.zeros(2)),
        ("grippers", (5,)),
        ("arms", 2),
        ("temperature", np.nan),
        ("stale", 0.0),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(mine, name, value):
    limits = mine().limits
    with pytest.raises(SettingError, match=rf"limits\.({name}|high) is .*, expected"):
        replace(limits, **{name: value})


def test_health_that_is_no_number_stops_the_arm(mine):
    robot = mine()
    robot.connect()
    measure = robot.arm.measure

    def hot():
        state, velocity, health = measure()
        return state, velocity, replace(health, temperature=np.full(3, np.nan))

    robot.arm.measure = hot
    with pytest.raises(Stop, match=r"motors' temperature is .*expected 3 numbers"):
        robot.observe()
    robot.arm.measure = measure
    robot.close()


@pytest.mark.parametrize("shape", [(3,), (1, 1), (2, 3)])
def test_actions_of_another_shape_are_not_sent(mine, shape):
    robot = mine()
    robot.connect()
    robot.observe()
    with pytest.raises(UserError, match="actions of shape"):
        robot.act(np.zeros(shape))
    robot.close()


@pytest.mark.parametrize(
    ("picture", "when", "says"),
    [
        ("np.zeros((48, 64), np.uint8)", "time.monotonic()", r"shape \(48, 64\)"),
        ("np.zeros((48, 64, 3))", "time.monotonic()", "of uint8"),
        ("np.zeros((48, 64, 3), np.uint8)", "time.time()", "time.monotonic"),
        ("np.zeros((48, 64, 3), np.uint8)", "float('nan')", "time.monotonic"),
    ],
)
def test_pictures_that_are_none_are_refused(tmp_path, monkeypatch, picture, when, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = "camera_" + re.sub(r"\W", "_", tmp_path.name)
    Path(f"{name}.py").write_text(
        "import time\nimport numpy as np\n\n\nclass Eye:\n"
        "    def __init__(self, config): pass\n"
        f"    def take(self): return {picture}, {when}\n"
        "    def close(self): pass\n"
    )
    camera = make_camera("top", CameraConfig(f"{name}:Eye", size=(48, 64)))
    with pytest.raises(CameraError, match=says):
        camera.open()
