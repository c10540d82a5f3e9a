"""Keys without Enter, on Linux, macOS and (pretended) Windows."""

import builtins
import os
import pty
import sys
from types import SimpleNamespace

import pytest

from act_minimal.support.errors import UserError
from hardware.safety.keys import Keys, ask

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
        assert keys.pressed(wait=0.02) == ""
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


def test_without_stdin_there_are_no_keys(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with Keys() as keys:
        assert not keys.here


@pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")
def test_keys_of_a_terminal_come_one_by_one(monkeypatch):
    master, slave = pty.openpty()
    with open(slave, closefd=True) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with Keys() as keys:
            assert keys.here
            assert keys.pressed() == ""
            os.write(master, b"qa\n")  # pressed at once, none is swallowed
            assert [keys.pressed(1.0) for _ in range(3)] == ["q", "a", "\n"]
            assert keys.pressed() == ""
    os.close(master)


def test_a_question_that_nobody_can_answer(monkeypatch, capsys):
    def closed():
        raise EOFError

    monkeypatch.setattr(builtins, "input", closed)
    with pytest.raises(UserError, match="nobody can answer 'plug in'"):
        ask("plug in")
    monkeypatch.setattr(builtins, "input", lambda: "done")
    assert ask("plug in") == "done"
    assert capsys.readouterr().out == "plug in\nplug in\n"
