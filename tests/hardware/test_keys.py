"""Keys without Enter, on Linux, macOS and (pretended) Windows."""

import builtins
import contextlib
import os
import pty
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from act_minimal.support.errors import UserError
from hardware.safety.keys import Keys, ask
from hardware.safety.stop import Stop
from hardware.teleop import STEP, Keyboard

from ..clocks import eventually

pytestmark = pytest.mark.quick


class Terminal:
    """Stands in for sys.stdin where a person sits, or where nobody does."""

    def __init__(self, here=True, number=0):
        self.here, self.number = here, number

    def isatty(self):
        return self.here

    def fileno(self):
        return self.number


@pytest.fixture
def windows(monkeypatch):
    """Windows, with a keyboard on which keys can be laid."""
    waiting: list[str] = []
    keyboard = SimpleNamespace(
        kbhit=lambda: bool(waiting), getwch=lambda: waiting.pop(0)
    )
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", keyboard)
    monkeypatch.setattr(sys, "stdin", Terminal())
    return waiting


def test_keys_on_windows(windows):
    with Keys() as keys:
        assert keys.here
        assert keys.pressed() == ""
        windows += ["q", " ", "\r", "é", "\xe0", "H", "\x00", ";", "x"]
        pressed = [keys.pressed() for _ in range(7)]
        # Enter as elsewhere; an arrow and F1 are two codes each, and no letters.
        assert pressed == ["q", " ", "\n", "é", "", "", "x"]
        windows.append("\x03")
        with pytest.raises(KeyboardInterrupt):
            keys.pressed()


def test_without_a_terminal_there_are_no_keys(windows, monkeypatch):
    windows.append("q")
    monkeypatch.setattr(sys, "stdin", Terminal(here=False))
    with Keys() as keys:
        assert not keys.here
        assert keys.pressed() == ""
    monkeypatch.setattr(sys, "stdin", None)  # as in a program without a console
    with Keys() as keys:
        assert not keys.here


@pytest.fixture
def terminal(monkeypatch):
    """(what a person types into, a `Keys` at the other end)."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as file:
        monkeypatch.setattr("sys.stdin", file)
        with Keys() as keys:
            yield ours, keys
    with contextlib.suppress(OSError):
        os.close(ours)


def test_keys_of_a_terminal_come_one_by_one(terminal):
    typed, keys = terminal
    assert keys.here
    assert keys.pressed() == ""
    os.write(typed, "qü\x13x\n".encode())  # Ctrl-S holds nothing up
    found = [eventually(keys.pressed)]
    found += [keys.pressed() for _ in range(4)]
    assert found == ["q", "ü", "\x13", "x", "\n"]
    assert keys.pressed() == ""


def test_a_space_comes_before_the_keys_that_wait(terminal):
    typed, keys = terminal
    os.write(typed, b"qqqq q")
    assert eventually(keys.pressed) == " "
    assert keys.pressed() == ""


def test_a_terminal_that_goes_away_is_a_stop(terminal):
    typed, keys = terminal
    os.close(typed)
    assert keys.here
    with pytest.raises(Stop, match="no key can be read any more"):
        eventually(keys.pressed)
    assert not keys.here
    assert keys.pressed() == ""


def test_a_question_that_nobody_can_answer(monkeypatch, capsys):
    def closed():
        raise EOFError

    monkeypatch.setattr(builtins, "input", closed)
    with pytest.raises(UserError, match="nobody can answer 'plug in'"):
        ask("plug in")
    monkeypatch.setattr(builtins, "input", lambda: "done")
    assert ask("plug in") == "done"
    assert capsys.readouterr().out == "plug in\nplug in\n"


class Typed(Keys):
    def __init__(self, text):
        self.text = list(text)

    def pressed(self, wait=0.0):
        return self.text.pop(0) if self.text else ""


@pytest.mark.parametrize(
    ("text", "arms", "moved", "others"),
    [
        # A space stops the arm: what came with it no longer counts.
        ("qqa sx", {"joints": 6}, {0: 1, 1: -1}, [" ", "", ""]),
        # q twice, and i; a and k after tab, which takes the other arm.
        (
            "qi\tak\tqx",
            {"joints": 8, "arms": 2},
            {0: 2, 7: 1, 8: -1, 15: -1},
            ["x", "", ""],
        ),
    ],
)
def test_keys_move_joints_and_hand_on_the_others(text, arms, moved, others):
    source = Keyboard(Typed(text), **arms)
    wish = source.wish(np.zeros(arms["joints"] * arms.get("arms", 1))) / STEP
    assert {i: wish[i] for i in np.flatnonzero(wish)} == pytest.approx(moved)
    assert [source.other() for _ in others] == others
