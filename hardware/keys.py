"""Single key presses from the terminal, without Enter."""

import contextlib
import select
import sys
from typing import Any


class Keys:
    """Reads keys while the `with` block lasts; without a terminal there are none."""

    def __enter__(self) -> "Keys":
        self._old: Any = None
        with contextlib.suppress(ImportError, OSError, ValueError):
            import termios
            import tty

            if sys.stdin.isatty():
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
        return self._old is not None

    def pressed(self, wait: float = 0.0) -> str:
        """The next key, or "" if none comes within `wait` seconds."""
        if self._old is None:
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], wait)
        return sys.stdin.read(1) if ready else ""
