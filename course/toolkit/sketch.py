"""The one style of the schematics: boxes, arrows and words, on a clear background.

The background is transparent and every line, letter and tint reads on white and on
black, so one picture serves light and dark pages. Coordinates are inches.
"""

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .plots import Picture

# Hues of Okabe and Ito, as bright as reads on white and on black (4:1). What a colour
# says, words say too.
BLUE, ORANGE, GREEN = "#1b7fc0", "#cf5b00", "#068a64"
PINK, YELLOW, GREY = "#b45f8e", "#a97400", "#7c7c7c"
INK = "#1a1a1a"  # of what stands inside boxes
TINTS = {
    BLUE: "#cfe4f3",
    ORANGE: "#f8d9c4",
    GREEN: "#cbebdf",
    PINK: "#f3dfeb",
    YELLOW: "#fbe7c2",
    GREY: "#e6e6e6",
}
WIDTH = 7.5  # inches
DPI = 96  # dots an inch of a web page: a letter of 10 pt is shown as 10 pt
SIZE = 10  # pt
SMALL = 9  # pt

Point = tuple[float, float]


class Sketch:
    """A figure without axes: boxes, arrows and words at places in inches."""

    def __init__(self, height: float, width: float = WIDTH):
        self.fig = Figure(figsize=(width, height), dpi=DPI, facecolor="none")
        self.axes = self.fig.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()
        self.boxes = 0

    def box(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        text: str = "",
        colour: str = GREY,
        *,
        size: int = SIZE,
        filled: bool = True,
        round: float = 0.06,
    ) -> None:
        """A box whose lower left corner is (x, y), with words in its middle."""
        name = f"box {self.boxes}"
        self.boxes += 1
        patch = FancyBboxPatch(
            (x, y),
            w,
            h,
            boxstyle=f"round,pad=0,rounding_size={round}",
            facecolor=TINTS[colour] if filled else "none",
            edgecolor=colour,
            linewidth=1.3,
            linestyle="-" if filled else (0, (3, 2)),
            gid=name,
        )
        self.axes.add_patch(patch)
        if text:
            ink = INK if filled else GREY
            self.words(x + w / 2, y + h / 2, text, ink, size=size).set_gid(f"in {name}")

    def words(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = GREY,
        *,
        align: str = "center",
        size: int = SIZE,
        **how: Any,
    ):
        """Words around, or from, or up to (x, y)."""
        how = {"ha": align, "va": "center_baseline", "linespacing": 1.25} | how
        return self.axes.text(x, y, text, color=colour, fontsize=size, **how)

    def arrow(
        self, start: Point, end: Point, colour: str = GREY, look: str = "-|>"
    ) -> None:
        """A straight arrow; `look` "-" has no head, "<|-|>" two."""
        patch = FancyArrowPatch(
            start,
            end,
            arrowstyle=look,
            mutation_scale=11,
            shrinkA=0,
            shrinkB=0,
            color=colour,
            linewidth=1.4,
        )
        self.axes.add_patch(patch)

    def path(self, *points: Point, colour: str = GREY) -> None:
        """An arrow that goes through these points."""
        x, y = np.array(points[:-1]).T
        self.axes.plot(x, y, color=colour, lw=1.4, solid_joinstyle="miter")
        self.arrow(points[-2], points[-1], colour)

    def bracket(self, left: float, right: float, y: float, text: str) -> None:
        """A bracket below a row, with words under it."""
        xs, ys = [left, left, right, right], [y + 0.08, y, y, y + 0.08]
        self.axes.plot(xs, ys, color=GREY, lw=1.3)
        self.words((left + right) / 2, y - 0.14, text, size=SMALL)


def drawing(alt: str) -> Callable[[Callable[[], Figure]], Callable[[], Picture]]:
    """Make a function that draws a figure one that shows it, described by `alt`."""

    def made(draw: Callable[[], Figure]) -> Callable[[], Picture]:
        @functools.wraps(draw)
        def shown() -> Picture:
            buffer = io.BytesIO()
            draw().savefig(buffer, format="png", dpi=DPI, transparent=True)
            return Picture(buffer.getvalue(), alt)

        return shown

    return made
