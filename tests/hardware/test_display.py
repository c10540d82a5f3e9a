"""What a terminal shows while an arm is moved by hand; and that it holds nobody up."""

import io
import os
import re
import signal
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from act_minimal.support.console import prepare_output
from hardware.command.display import Display, shown
from hardware.openarm.limits import openarm_limits
from hardware.safety.safe_robot import SafeRobot, so100_limits
from hardware.so100.kinematics import JOINTS
from hardware.teleop import Gamepad, Keyboard, Leader, OpenArmLeader

from ..clocks import eventually
from ..commands import start_program, typed_at
from ..support.test_console import Terminal
from .fake_arm import Clock, FakeArm


class NoKeys:
    here = True

    def pressed(self, wait=0.0):
        return ""


def text_of(display):
    console = Console(file=io.StringIO(), width=100)
    console.print(display.render())
    return console.file.getvalue()


@pytest.fixture
def robot(monkeypatch):
    limits = so100_limits()
    robot = SafeRobot(FakeArm(limits, Clock(monkeypatch), joints=JOINTS), limits)
    robot.connect()
    return robot


@pytest.mark.quick
def test_keys_pose_and_what_was_limited_are_shown(robot):
    display = Display(robot, Keyboard(NoKeys()))
    rows = text_of(display).splitlines()
    assert rows[0].split() == ["joint", "keys", "is", "told", "load", "deg", "C"]
    assert rows[1].split() == ["shoulder_pan", "q", "a", "0.00", "0.00", "0%", "30"]
    assert rows[6].split()[:4] == ["gripper", "y", "h", "0.32"]
    assert "limited now: nothing (so far: -)" in rows[7]
    assert "space ends it" in rows[8]
    robot.observe()
    robot.act(robot.limits.high[None] + 1)
    said = text_of(display)
    assert "limited now: joint limit, speed" in said
    assert "so far: joint limit 1, speed 1" in said
    robot.arm.time.now += 2
    assert "limited now: nothing (so far: joint limit 1" in text_of(display)


@pytest.mark.quick
def test_with_two_arms_the_keys_are_those_of_the_one_whose_turn_it_is(monkeypatch):
    limits = openarm_limits()
    robot = SafeRobot(FakeArm(limits, Clock(monkeypatch), "openarm"), limits)
    robot.connect()
    source = Keyboard(NoKeys(), joints=8, arms=2)
    rows = text_of(Display(robot, source)).splitlines()
    assert rows[1].split()[:4] == ["joint", "0", "q", "a"]
    assert rows[9].split()[:3] == ["joint", "8", "0.00"]
    source.press("\t")
    rows = text_of(Display(robot, source)).splitlines()
    assert rows[1].split()[:3] == ["joint", "0", "0.00"]
    assert rows[16].split()[:4] == ["joint", "15", "i", "k"]
    assert "tab takes the other arm" in rows[-1]


@pytest.mark.quick
def test_every_source_says_how_it_is_used():
    pad = Gamepad(30.0, object())
    assert [pad.keys_of(i) for i in range(6)] == list(Gamepad.MOVED_BY)
    assert "start is space" in pad.hint
    for leader in (Leader("port", None), OpenArmLeader(None)):  # type: ignore[arg-type]
        assert leader.keys_of(0) == "leader"
        assert "space ends it" in leader.hint


@pytest.mark.quick
def test_nothing_is_drawn_where_there_is_no_terminal(robot, capsys):
    with shown(robot, Keyboard(NoKeys())):
        time.sleep(0.01)
    assert capsys.readouterr().out == ""


@pytest.mark.quick
@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_the_colours_and_letters_that_it_takes(
    robot, monkeypatch, no_color
):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal("ascii", terminal=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    prepare_output()
    robot.joints = ("Würfel", *JOINTS[1:])
    with shown(robot, Keyboard(NoKeys())):
        eventually(lambda: "space ends it" in terminal.said())
    assert "Wurfel" in terminal.said()
    styled = re.search(r"\x1b\[[\d;]*m", terminal.said())  # such as bold
    assert bool(styled) != bool(no_color)


class Gone(io.StringIO):
    """A terminal that went away."""

    def isatty(self):
        return True

    def write(self, text):
        raise OSError(5, "Input/output error")


@pytest.mark.quick
def test_a_terminal_that_goes_away_disturbs_nobody(robot, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Gone())
    with shown(robot, Keyboard(NoKeys())):
        robot.go(robot.limits.rest)
    assert robot.arm.state == pytest.approx(robot.limits.rest, abs=0.01)
    assert not np.isnan(robot.arm.state).any()


@pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")
@pytest.mark.parametrize("ended_by", ["space", "Ctrl-C"])
def test_teleop_shows_its_keys_in_a_terminal(tmp_path, ended_by):
    import pty

    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    size = {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    line = "teleop --port virtual --live -1 --seconds 60"
    process = start_program(
        tmp_path, line, env=os.environ | size, start_new_session=True, **streams
    )
    os.close(theirs)

    def interrupt():  # as a terminal does: every program that it started
        os.killpg(process.pid, signal.SIGINT)

    answer = b"qqq " if ended_by == "space" else interrupt
    said = typed_at(ours, process, [("limited now", answer)])
    os.close(ours)
    assert process.returncode == 0, said
    assert "shoulder_pan" in said
    assert "q a" in said
    [ticks] = re.findall(r"(\d+) ticks, jitter", said)
    assert int(ticks) < 60 * 30  # it was ended, and then laid down
