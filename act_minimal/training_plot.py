"""A loss curve that grows in a notebook while the training runs."""

import io
import time
from collections.abc import Callable
from typing import Any

from act_minimal.run_folder import Record


def plot_losses(records: list[Record], axes: Any = None) -> Any:
    """Draws L1 in training and, where there is one, in validation.

    Args:
        records: of `TrainResult.losses` or `run_folder.read_log`.
        axes: matplotlib axes to draw on; new ones by default.

    Returns:
        The axes.
    """
    if axes is None:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(6, 3), layout="constrained").add_subplot()
    axes.clear()
    for key, label in (("l1", "training"), ("val_l1", "validation, z = 0")):
        points = [(r["step"], r[key]) for r in records if key in r]
        if points:
            style = "-" if key == "l1" else "o-"
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
            axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel="L1, normalised units", yscale="log")
    return axes


def live_curve(every: float = 1.0) -> Callable[[Record], None]:
    """An `on_step` for `train` that redraws the curve at most once in `every` seconds.

    Outside a notebook it draws to nowhere and does no harm.
    """
    from IPython.display import Image, display

    axes = plot_losses([])
    figure = axes.figure

    def picture() -> Image:
        png = io.BytesIO()
        figure.savefig(png, format="png")
        return Image(data=png.getvalue())

    handle = display(picture(), display_id=True)
    records: list[Record] = []
    drawn = time.monotonic()

    def on_step(record: Record) -> None:
        nonlocal drawn
        records.append(record)
        if time.monotonic() - drawn < every and "val_l1" not in record:
            return
        plot_losses(records, axes)
        if handle is not None:
            handle.update(picture())
        drawn = time.monotonic()

    return on_step
