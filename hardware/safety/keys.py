"""Single key presses from the terminal, without Enter; and questions that want one.

Linux and macOS hand out single keys through `termios`, Windows through `msvcrt`.
"""

import codecs
import contextlib
import os
import select
import sys
from typing import Any

from act_minimal.support.errors import UserError

from .stop import EmergencyStop, Stop

SPACE = " "


class Keys:
    """Reads keys while the `with` block lasts; without a terminal there are none."""

    def __enter__(self) -> "Keys":
        self._old: Any = None
        self._windows: Any = None
        self._gone = False
        # Read past Python's own buffer: `select` does not see what waits in there, and
        # a space behind another key must stop an arm now.
        self._waiting = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
            if not sys.stdin.isatty():
                return self
            if sys.platform == "win32":
                import msvcrt

                self._windows = msvcrt
            else:
                import termios
                import tty

                self._old = termios.tcgetattr(sys.stdin)
                tty.setcbreak(sys.stdin)
                # Ctrl-S would hold up whoever writes to the terminal, and so the arm.
                mode = termios.tcgetattr(sys.stdin)
                mode[0] &= ~termios.IXON
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mode)
        return self

    def __exit__(self, *_: object) -> None:
        if self._old is not None:
            import termios

            with contextlib.suppress(termios.error, OSError, ValueError):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._old)

    @property
    def here(self) -> bool:
        """Whether there is a terminal, and so somebody who can press keys."""
        return (self._old or self._windows) is not None and not self._gone

    def pressed(self) -> str:
        """The next key, or "" if none was pressed; Enter is a new line.

        Raises:
            Stop: the terminal is gone, and with it the key that stops the arm.
        """
        if self._windows is not None:
            return self._pressed_on_windows()
        if self.here:
            self._waiting += self._decoder.decode(self._read())
        if SPACE in self._waiting:  # it stops an arm: now, and not behind other keys
            self._waiting = SPACE
        key, self._waiting = self._waiting[:1], self._waiting[1:]
        return key

    def _read(self) -> bytes:
        try:
            file = sys.stdin.fileno()
            if not select.select([file], [], [], 0.0)[0]:
                return b""
            if found := os.read(file, 1024):
                return found
            why = "it was closed"
        except (OSError, ValueError) as error:
            why = str(error)
        self._gone = True
        raise Stop(f"no key can be read any more ({why}), so none could stop the arm")

    def _pressed_on_windows(self) -> str:
        if not self._windows.kbhit():
            return ""
        key = self._windows.getwch()
        if key in "\x00\xe0":  # an arrow or function key: two codes, and no letter
            self._windows.getwch()
            return ""
        if key == "\x03":  # unlike a line that is read, a key hides Ctrl-C
            raise KeyboardInterrupt
        return "\n" if key == "\r" else key


def ask(text: str) -> str:
    """Show a sentence; the line that is typed below it, or UserError without input."""
    print(text, flush=True)
    try:
        return input()
    except EOFError:
        raise UserError(
            f"nobody can answer '{text}': there is no terminal, and no input"
        ) from None


def watch_keys(keys: Keys, stop: EmergencyStop) -> None:
    """Space is an emergency stop, other keys are dropped: while an arm moves slowly."""
    if keys.pressed() == " ":
        stop.raise_flag("space bar")
