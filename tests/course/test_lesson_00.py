"""Lesson 00: the arm under sliders, the films, the short doctor, the first check."""

import re

import numpy as np
import pytest
import torch

from act_minimal.checkpoint import load_policy
from act_minimal.command import doctor
from act_minimal.evaluation import Rollout
from act_minimal.sim.so100 import arm as so100
from act_minimal.sim.so100.expert import Reach
from act_minimal.sim.world import World, start
from course.figures import lesson_00 as welcome

from ..clocks import retried
from .helpers import answers, check_readable, evaluation

pytestmark = pytest.mark.quick


test_the_length_of_a_chunk = answers(
    "00.seconds",
    right=[
        (lambda k, rate: torch.tensor(k / rate), ""),
        (lambda k, rate: k / rate, "saw once"),
    ],
    wrong=[
        (lambda k, rate: 1.0002 * k / rate, "last 1.6667 s; yours says 1.6670"),
        (lambda k, rate: k * rate, "divide by the rate"),
        (lambda k, rate: rate / k, "other way round"),
        (lambda k, rate: 1000 * k / rate, "milliseconds"),
        (lambda k, rate: (k - 1) / rate, "not k - 1"),
        (lambda k, rate: 1 / rate, "one action"),
        (lambda k, rate: k // rate, "not //"),
        (lambda k, rate: "soon", "a number of seconds"),
        (lambda k, rate: 7.0, "last 1.667 s"),
        (lambda k, rate: -k / rate, "last 1.667 s"),
        (lambda k, rate: (k + 1) / rate, "last 1.667 s"),
        (lambda k, rate: round(k / rate), "last 1.667 s"),
        (lambda k, rate: [k / rate, rate], "a number of seconds"),
        (lambda k, rate: k / 30, "take both, k and rate"),
        (lambda k, rate: 50 / rate, "take both, k and rate"),
    ],
)


def test_the_arm_is_where_its_joints_put_it():
    """The fingers' place agrees with the experts' own model of the arm."""
    arm, reach = welcome.Arm(), Reach()
    target = np.array([0.0, -0.22, 0.05])
    joints = reach(target, None, np.array([0.0, -1.5, 1.5, 1.2, -1.57]))
    arm.pose(joints, 0.4)
    np.testing.assert_allclose(arm.fingers(), target, atol=2e-3)
    np.testing.assert_allclose(arm.cube(), start(welcome.TASK, 3)[6:9])
    assert arm.picture().std() > 10


def test_every_joint_goes_to_both_ends():
    explorer = welcome.arm_explorer()
    check_readable(explorer)
    limits = np.degrees(so100.joint_limits())
    before = explorer.figure_html
    for name, control in explorer.controls.items():
        home = control.value
        for end in (control.min, control.max):
            if end == home:
                continue
            explorer.set(**{name: end})
            if name in welcome.NAMES:
                low, high = limits[welcome.NAMES.index(name)]
                assert low <= end <= high
            assert explorer.figure_html != before, (name, end)
        explorer.set(**{name: home})
    assert explorer.errors == []
    assert "32 % open" in explorer.says


def test_the_explorer_tells_the_distance_to_the_cube():
    explorer = welcome.arm_explorer(scene=5)
    cube = start(welcome.TASK, 5)[6:9]
    arm = welcome.Arm(scene=5)
    degrees = [explorer.controls[name].value for name in welcome.NAMES]
    arm.pose(np.radians(degrees), 0.32)
    apart = 100 * np.linalg.norm(arm.fingers() - cube)
    said = float(re.search(r"([\d.]+) cm from the cube", explorer.says)[1])
    assert said == pytest.approx(apart, abs=0.06)


def test_an_answer_of_the_arm_is_quick():
    explorer = welcome.arm_explorer()

    def answers():
        explorer.seconds.clear()
        for degrees in range(-40, 40, 8):
            explorer.set(shoulder_pan=degrees)
        assert np.median(explorer.seconds) < 1.0

    retried(answers)  # the machine may be busy; the goal is measured elsewhere


def test_experts_are_filmed(home):
    takes = welcome.expert_takes("scripted", [0])
    world = World(welcome.TASK)
    world.reset([0])
    np.testing.assert_allclose(takes[0].qpos[0], world.qpos[0], rtol=1e-6)
    assert takes[0].success
    takes[0].qpos = takes[0].qpos[:12]
    shown = welcome._film(takes, "few", "A film of one arm for a test")
    assert shown.mp4[4:8] == b"ftyp"
    assert (home / "films" / "few.mp4").exists()


def test_rollouts_are_filmed_as_they_come():
    state = start(welcome.TASK, 7).astype(np.float32)
    rolls = [
        Rollout(i, i == 1, 6, 0.0, 0.0, np.repeat(state[None], 6, 0)) for i in range(3)
    ]
    policy = load_policy(welcome.checkpoint())
    shown = welcome.film_rollouts(evaluation(1, 3, rolls), policy, 2)
    assert "1 of 2 put the cube into the bin" in shown.alt
    both = welcome.first_and_all(evaluation(1, 3, rolls), 1)
    assert both == "the first 1 scenes: 0 of 1; all scenes: 1 of 3"
    assert len(shown.mp4) > 1000


def test_the_short_doctor_says_what_to_mend():
    rows = [
        doctor.Check("python", "ok", "3.12 somewhere"),
        doctor.Check("serial port", "warning", "no permission", "sudo it"),
        doctor.Check("drawing", "missing", "nothing draws", "install it"),
        doctor.Check("display", "info", "none"),
    ]
    lines = welcome.Health(tuple(rows)).lines()
    assert lines[0] == "Not ready. Looked at, and fine: python, display."
    assert "serial port (warning): no permission. To mend it: sudo it" in lines
    assert any("drawing (missing)" in line for line in lines)
    assert "somewhere" not in repr(welcome.Health(tuple(rows)))
    assert welcome.Health(tuple(rows[:1])).ready
