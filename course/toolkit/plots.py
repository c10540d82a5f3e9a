"""Figures that everyone can read: colours of Okabe and Ito, line styles, alt text."""

import base64
import html
import io
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

# Told apart by colour-blind people; black is for what is given (data, an expert).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
DPI = 90


@dataclass(frozen=True)
class Picture:
    """A figure as a notebook shows it: an image with alternative text."""

    png: bytes
    alt: str

    def html(self) -> str:
        """The `<img>` element."""
        data = base64.b64encode(self.png).decode()
        alt = html.escape(self.alt, quote=True)
        return (
            f'<img alt="{alt}" src="data:image/png;base64,{data}" '
            'style="max-width:100%">'
        )

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        return f"[figure: {self.alt}]"


def figure(
    columns: int = 1, *, rows: int = 1, width: float = 8.0, height: float = 3.2
) -> tuple[Figure, Any]:
    """An empty figure, in inches, with `rows` × `columns` axes (one, or an array)."""
    with matplotlib.rc_context(STYLE):
        # Not through pyplot: nothing to close, and no second copy in the notebook.
        fig = Figure(figsize=(width, height))
        axes = fig.subplots(rows, columns)
    return fig, axes


def show(fig: Figure, alt: str) -> Picture:
    """A figure with its alternative text, as the last line of a cell.

    Raises:
        ValueError: no alternative text worth its name: what it shows, in a sentence.
    """
    if len(alt.split()) < 4:
        raise ValueError(f"alternative text {alt!r}: say in a sentence what it shows")
    return Picture(render(fig), alt)


def render(fig: Figure, dpi: int = DPI) -> bytes:
    """The figure as PNG bytes.

    Not by `savefig`, which draws everything twice to learn how large it is.
    """
    buffer, usual = io.BytesIO(), fig.dpi
    canvas = FigureCanvasAgg(fig)
    with matplotlib.rc_context(STYLE):
        try:
            fig.set_dpi(dpi)
            canvas.draw()
            picture = Image.fromarray(np.asarray(canvas.buffer_rgba()))
        finally:
            fig.set_dpi(usual)
    # Little compression: a few bytes more, in a fraction of the time.
    picture.convert("RGB").save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def style(i: int, marker: bool = False) -> dict[str, Any]:
    """How the i-th line of a figure is drawn, as keywords of `axes.plot`."""
    how = {"color": COLOURS[i], "ls": LINES[i]}
    return how | {"marker": MARKERS[i]} if marker else how


def plot_rates(axes: Axes, x: Any, rates: Any, intervals: Any, **how: Any) -> None:
    """Success rates (n,) in percent over `x`, with their intervals (n, 2)."""
    rate = 100 * np.array(rates)
    ends = 100 * np.array(intervals).reshape(-1, 2).T
    axes.errorbar(x, rate, np.abs(ends - rate), capsize=3, **how)


def log_numbers(axis: Axis) -> None:
    """Numbers of a logarithmic axis, written out: 0.1, 0.2, 0.5, 1, ..."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def log_ticks(axes: Axes, values: Any) -> None:
    """A logarithmic horizontal axis, named at these values only."""
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(values, [str(value) for value in values])


def still_layout(fig: Figure) -> None:
    """Lay a figure out once: doing that anew takes a slider's answer half its time."""
    fig.draw_without_rendering()
    fig.set_layout_engine("none")


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Name both axes, with units, and the picture."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title, fontsize=10, loc="left")
