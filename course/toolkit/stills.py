"""A widget as a picture, for pages where none can live: a code host, a printed copy."""

import textwrap
from collections.abc import Sequence
from typing import Any

import ipywidgets

from .plots import COLOURS, Picture, figure, render

LINE, WRAP = 0.28, 84  # in an inch, and in characters
LEFT, RIGHT = 2.6, 6.2  # in: the ends of a slider
GREY, PALE = "#888888", "#dddddd"


def still(question: str, controls: Sequence[Any], button: str = "") -> Picture:
    """A question with its controls as they stand, and a button below them."""
    asked = textwrap.wrap(question, WRAP)
    rows = len(asked) + sum(map(_rows, controls)) + bool(button)
    height = LINE * rows + 0.15
    fig, axes = figure(width=8.0, height=height)
    fig.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(0, 8.0), ylim=(height, 0))
    axes.axis("off")
    y = LINE
    for line in asked:
        axes.text(0.1, y, line, weight="bold", va="center")
        y += LINE
    for control in controls:
        _draw(axes, control, y)
        y += LINE * _rows(control)
    if button:
        _box(axes, 0.15, y, button, chosen=False)
    return Picture(render(fig), " ".join([question, *map(_words, controls)]))


def _options(control: Any) -> list[str]:
    """The labels of a control that has options, as ipywidgets keeps them."""
    return list(control._options_labels)


def _rows(control: Any) -> int:
    listed = isinstance(control, ipywidgets.RadioButtons)
    return len(_options(control)) if listed else 1


def _words(control: Any) -> str:
    name = f"{control.description}: " if control.description else ""
    if isinstance(control, ipywidgets.RadioButtons):
        return f"Choices: {'; '.join(_options(control))}."
    return f"{name}{_value(control)}."


def _value(control: Any) -> str:
    if hasattr(control, "_options_labels"):
        return "nothing" if control.index is None else _options(control)[control.index]
    value = control.value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _draw(axes: Any, control: Any, y: float) -> None:
    if isinstance(control, ipywidgets.RadioButtons):
        for i, option in enumerate(_options(control)):
            row = y + LINE * i
            face = COLOURS[0] if i == control.index else "white"
            axes.plot([0.3], [row], "o", mfc=face, mec=GREY, markersize=8)
            axes.text(0.5, row, option, va="center")
        return
    axes.text(LEFT - 0.2, y, control.description, va="center", ha="right")
    if isinstance(control, ipywidgets.ToggleButtons):
        x = LEFT - 0.1
        for i, option in enumerate(_options(control)):
            x += _box(axes, x, y, option, chosen=i == control.index)
    elif (share := _share(control)) is not None:
        axes.plot([LEFT, RIGHT], [y, y], color=PALE, lw=4, solid_capstyle="round")
        axes.plot([LEFT + share * (RIGHT - LEFT)], [y], "o", color=COLOURS[0], ms=9)
        axes.text(RIGHT + 0.25, y, _value(control), va="center")
    else:
        axes.text(LEFT, y, _value(control), va="center")


def _share(control: Any) -> float | None:
    """Where the handle of a slider stands, from 0 to 1."""
    if isinstance(control, ipywidgets.SelectionSlider):
        return (control.index or 0) / max(1, len(_options(control)) - 1)
    if hasattr(control, "min") and control.max > control.min:
        return (control.value - control.min) / (control.max - control.min)
    return None


def _box(axes: Any, x: float, y: float, text: str, *, chosen: bool) -> float:
    """A button; returns its width."""
    face, ink = (COLOURS[0], "white") if chosen else ("#eeeeee", "black")
    style = {"boxstyle": "round,pad=0.3", "fc": face, "ec": GREY, "lw": 0.5}
    axes.text(x, y, text, color=ink, va="center", size=9, bbox=style)
    return 0.35 + 0.075 * len(text)
