"""A loss curve that grows in a notebook while the training runs."""

import time
from typing import Any

from act_minimal.checkpoint import Record

from .plots import Picture, figure, log_numbers, render

CURVE = "Loss of the run so far, on a logarithmic scale against steps; n = 1 run."


def plot_losses(records: list[Record]) -> Any:
    """Draw L1 in training and, where there is one, in validation; returns the axes."""
    axes = figure(height=2.6)[1]
    for key, label in (("l1", "training"), ("val_l1", "validation, z = 0")):
        points = [(r["step"], r[key]) for r in records if key in r]
        if points:
            style = "-" if key == "l1" else "o-"
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
            axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel="L1, normalised units", yscale="log")
    log_numbers(axes.yaxis)
    return axes


class LiveCurve:
    """An `on_step` for `train`: the curve grows under the cell, with its description.

    Outside a notebook it draws nothing. `every`: seconds between two pictures.
    """

    def __init__(self, every: float = 2.0):
        self.every, self.drawn = every, -every
        self.records: list[Record] = []
        self.handle: Any = None

    def picture(self) -> Picture:
        """The curve as it stands."""
        return Picture(render(plot_losses(self.records).figure), CURVE)

    def __call__(self, record: Record) -> None:
        from IPython import get_ipython
        from IPython.display import display

        self.records.append(record)
        now = time.monotonic()
        if get_ipython() is None or now - self.drawn < self.every:
            return
        self.drawn = now
        if self.handle is None:
            self.handle = display(self.picture(), display_id=True)
        else:
            self.handle.update(self.picture())
