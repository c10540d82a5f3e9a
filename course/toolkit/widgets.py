"""Explorers: a question, sliders, a figure that answers, the number that matters."""

import html
import time
import traceback
from collections.abc import Callable
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from .plots import Picture, render
from .stills import still

Draw = Callable[..., tuple[Figure, str]]
STYLE = {"description_width": "14em"}
LAYOUT = {"width": "34em"}


class Explorer(ipywidgets.VBox):
    """Controls over a figure; moving one draws the figure anew.

    An exception while drawing is shown in the figure's place and kept in `errors`:
    unlike `ipywidgets.interact`, which swallows it into an output that nobody reads.

    Args:
        question: what moving the controls answers.
        draw: called with the controls' values by name; returns the figure and a
            sentence that says what it shows, number included.
        **controls: an ipywidgets control each; its `value` is what `draw` is given.
    """

    def __init__(self, question: str, draw: Draw, **controls: ipywidgets.ValueWidget):
        self.question, self.draw, self.controls = question, draw, controls
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self._picture = ipywidgets.HTML()
        self._says = ipywidgets.HTML()
        asked = ipywidgets.HTML(f"<b>{html.escape(question)}</b>")
        for control in controls.values():
            control.observe(self._answer, names="value")
        super().__init__([asked, *controls.values(), self._says, self._picture])
        self._answer()

    @property
    def figure_html(self) -> str:
        return self._picture.value

    @property
    def says(self) -> str:
        return self._says.value

    def set(self, **values: Any) -> "Explorer":
        """Move controls, as a hand on the slider does."""
        for name, value in values.items():
            self.controls[name].value = value
        return self

    def _answer(self, change: Any = None) -> None:
        start = time.perf_counter()
        try:
            values = {name: control.value for name, control in self.controls.items()}
            fig, sentence = self.draw(**values)
            picture = Picture(render(fig, dpi=96), sentence)
            # The first picture has laid the axes out; to do it again at every step of
            # a slider would take a third of the answer's time, and let them jump.
            fig.set_layout_engine("none")
            self._says.value = html.escape(sentence)
            self._picture.value = picture.html()
        except Exception:
            self.errors.append(traceback.format_exc())
            self._says.value = "This answer failed:"
            text = html.escape(self.errors[-1])
            self._picture.value = f'<pre class="course-error">{text}</pre>'
        self.seconds.append(time.perf_counter() - start)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget; and for pages where none can live, a picture of it as it is."""
        controls = still(self.question, list(self.controls.values()))
        shown = f"{controls.html()}<p>{self._says.value}</p>{self._picture.value}"
        return static(super()._repr_mimebundle_(**kwargs), shown, self._says.value)


def static(bundle: Any, shown: str, says: str) -> Any:
    """A widget's mimebundle, with HTML and a line of text for pages without widgets."""
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    if data:
        data["text/html"] = shown
        data["text/plain"] = f"[widget: {html.unescape(says)}]"
    return bundle


def slider(
    name: str, low: float, high: float, value: float, step: float = 1
) -> ipywidgets.ValueWidget:
    """A slider that reports while it moves; whole numbers where all are whole."""
    whole = all(float(x).is_integer() for x in (low, high, value, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    cast = int if whole else float
    return kind(
        value=cast(value),
        min=cast(low),
        max=cast(high),
        step=cast(step),
        description=name,
        continuous_update=True,
        style=STYLE,
        layout=LAYOUT,
    )


def steps(name: str, options: list, value: Any) -> ipywidgets.SelectionSlider:
    """A slider over a list of values; an option may be a pair (label, value)."""
    return ipywidgets.SelectionSlider(
        options=options,
        value=value,
        description=name,
        continuous_update=True,
        style=STYLE,
        layout=LAYOUT,
    )


def choice(name: str, options: list, value: Any) -> ipywidgets.ToggleButtons:
    """Buttons of which one is pressed, each as wide as its words."""
    style = STYLE | {"button_width": "max-content"}
    return ipywidgets.ToggleButtons(
        options=options, value=value, description=name, style=style
    )
