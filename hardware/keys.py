"""Single key presses from the terminal, without Enter; and questions that want one.

Linux and macOS hand out single keys through `termios`, Windows through `msvcrt`.
"""

import contextlib
import os
import select
import sys
import time
from typing import Any

from act_minimal.errors import UserError

POLL = 0.01  # s: Windows has nothing that waits for a key with a deadline


class Keys:
    """Reads keys while the `with` block lasts; without a terminal there are none."""

    def __enter__(self) -> "Keys":
        self._old: Any = None
        self._windows: Any = None
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
        return self

    def __exit__(self, *_: object) -> None:
        if self._old is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._old)

    @property
    def here(self) -> bool:
        """Whether there is a terminal, and so somebody who can press keys."""
        return self._old is not None or self._windows is not None

    def pressed(self, wait: float = 0.0) -> str:
        """The next key, or "" if none comes in `wait` seconds; Enter is a new line."""
        if self._windows is not None:
            return self._pressed_on_windows(wait)
        if self._old is None:
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], wait)
        # Not sys.stdin.read: it takes all that is there, and select sees none of it.
        return os.read(sys.stdin.fileno(), 1).decode(errors="ignore") if ready else ""

    def _pressed_on_windows(self, wait: float) -> str:
        deadline = time.monotonic() + wait
        while not self._windows.kbhit():
            if time.monotonic() >= deadline:
                return ""
            time.sleep(POLL)
        key = self._windows.getwch()
        if key in "\x00\xe0":  # an arrow or function key: two codes, and no letter
            self._windows.getwch()
            return ""
        if key == "\x03":  # unlike a line that is read, a key hides Ctrl-C
            raise KeyboardInterrupt
        return "\n" if key == "\r" else key


def ask(text: str) -> str:
    """Show a sentence, and return the line that is typed below it.

    Raises:
        UserError: nobody can answer, because there is no input.
    """
    print(text, flush=True)
    try:
        return input()
    except EOFError:
        raise UserError(
            f"nobody can answer '{text}': there is no terminal, and no input"
        ) from None
