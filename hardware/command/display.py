"""What a terminal shows while a person moves an arm: keys, pose, and what was limited.

Drawn by a thread of its own, which may fail or be held up by a terminal: the control
loop neither waits for it nor hears of it. Where there is no terminal, nothing is drawn.
"""

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from act_minimal.support.console import make_console

from ..safety.safe_robot import SafeRobot
from ..teleop import Described

PERIOD = 0.2  # s between two pictures
RECENT = 1.0  # s for which something that was limited counts as limited now


class Display:
    """The table, and what it has to remember for it."""

    def __init__(self, robot: SafeRobot, source: Described):
        self.robot, self.source = robot, source
        self._seen: Counter[str] = Counter()
        self._when: dict[str, float] = {}

    def limited(self) -> str:
        """What the limits changed just now, and how often since the start."""
        now = time.monotonic()
        counts = self.robot.interventions.counts.copy()
        for kind in counts - self._seen:
            self._when[kind] = now
        self._seen = counts
        kinds = [k for k, when in self._when.items() if now - when < RECENT]
        total = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        return f"limited now: {', '.join(kinds) or 'nothing'} (so far: {total or '-'})"

    def render(self) -> Group:
        robot = self.robot
        rows: dict[str, Any] = {
            "is": robot.measured,
            "told": robot.governor.target,
            "load": getattr(robot.arm.health, "load", None),
            "deg C": getattr(robot.arm.health, "temperature", None),
        }
        formats = {"is": "{:6.2f}", "told": "{:6.2f}", "load": "{:4.0%}"}
        table = Table(box=None, pad_edge=False)
        for column in ("joint", "keys", *rows):
            table.add_column(column, justify="right" if column in rows else "left")
        for index in range(robot.action_dim):
            name = robot.joints[index] if robot.joints else f"joint {index}"
            cells = [
                "-" if x is None else formats.get(column, "{:.0f}").format(x[index])
                for column, x in rows.items()
            ]
            table.add_row(name, self.source.keys_of(index), *cells)
        return Group(table, Text(self.limited()), Text(self.source.hint))


@contextlib.contextmanager
def shown(robot: SafeRobot, source: Described) -> Iterator[None]:
    """Show the table while the block lasts, if there is a terminal."""
    if not sys.stdout.isatty():
        yield
        return
    display, over = Display(robot, source), threading.Event()
    live = Live(console=make_console(), auto_refresh=False)

    def draw() -> None:
        # A terminal that cannot be written to is no reason to stop an arm.
        with contextlib.suppress(Exception):
            live.start()
            while not over.wait(PERIOD):
                live.update(display.render(), refresh=True)
        with contextlib.suppress(Exception):
            live.stop()

    thread = threading.Thread(target=draw, daemon=True, name="display")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)
