"""Predict first: a guess, kept before the measurement is shown."""

import html
import json
import math
from dataclasses import dataclass
from typing import Any

import ipywidgets

from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.files import reason, write_json

from .paths import folder, home
from .plots import COLOURS, Picture, figure, label, render
from .questions import QUESTIONS, Question
from .results import NOT_YET, ResultError, fill, find_row, rate_text
from .runs import alone
from .stills import still
from .widgets import static

SAVE = "Save my prediction"


def read_predictions() -> dict[str, float | str]:
    """Every prediction that was saved; what can be none is left out."""
    path = folder() / "predictions.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}); remove it to predict anew"
        ) from error
    found = found if isinstance(found, dict) else {}
    return {key: value for key, value in found.items() if _can_be(key, value)}


def _can_be(key: str, value: Any) -> bool:
    """Whether a value can answer a question; of one that is not known, any can."""
    if isinstance(value, str):
        return key not in QUESTIONS or value in QUESTIONS[key].choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if key not in QUESTIONS:
        return isinstance(value, int) or math.isfinite(value)
    question = QUESTIONS[key]
    return not question.choices and question.low <= value <= question.high


def save_prediction(key: str, value: float | str) -> None:
    """Keep a prediction; an older one is replaced.

    Raises:
        UserError: it could not be written, and why.
    """
    find_question(key)
    path = home() / "predictions.json"
    with alone(path):
        write_json(path, read_predictions() | {key: value})


def find_question(key: str) -> Question:
    """The question of this key; `SettingError` lists the known."""
    if key not in QUESTIONS:
        raise SettingError(
            f"no question '{key}'; the questions are: {', '.join(sorted(QUESTIONS))}"
        )
    return QUESTIONS[key]


class Prediction(ipywidgets.VBox):
    """A question, the control that answers it, and a button that keeps the answer."""

    def __init__(self, question: str, control: Any, row: ipywidgets.HBox):
        self.question, self.control = question, control
        asked = ipywidgets.HTML(f"<b>{html.escape(question)}</b>")
        super().__init__([asked, control, row])

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget; and for pages where none can live, a picture of it as it is."""
        shown = still(self.question, [self.control], SAVE).html()
        return static(super()._repr_mimebundle_(**kwargs), shown, self.question)


def predict(key: str) -> Prediction:
    """Ask for a prediction: a slider or a choice, and a button that saves it."""
    question, before = find_question(key), read_predictions().get(key)
    if question.choices:
        control = ipywidgets.RadioButtons(
            options=list(question.choices),
            value=before,
            layout={"width": "max-content"},
        )
    else:
        control = ipywidgets.IntSlider(
            value=int(before) if isinstance(before, int | float) else question.middle,
            min=question.low,
            max=question.high,
            description=question.unit,
        )
    button = ipywidgets.Button(description=SAVE)
    state = ipywidgets.HTML("saved earlier" if before is not None else "not saved yet")

    def save(_: object) -> None:
        if control.value is None:
            state.value = "choose one first"
        else:
            state.value = "saved; the lesson will come back to it"
            try:
                save_prediction(key, control.value)
            except UserError as error:
                state.value = html.escape(f"not saved: {error}")

    button.on_click(save)
    return Prediction(question.text, control, ipywidgets.HBox([button, state]))


@dataclass(frozen=True)
class Reveal:
    """A measurement beside the prediction."""

    sentence: str
    picture: Picture | None

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        drawn = self.picture.html() if self.picture else ""
        return f"<p>{html.escape(self.sentence)}</p>{drawn}"


def reveal(key: str) -> Reveal:
    """What was measured, beside what was predicted."""
    question, guess = find_question(key), read_predictions().get(key)
    if question.choices:
        said = f"You predicted “{guess}”. " if guess else "You made no prediction. "
        return Reveal(f"{said}{fill(question.answer)}", None)
    try:
        row = find_row(question.result, question.path, **question.labels)
    except ResultError:
        return Reveal(f"The answer is {NOT_YET}.", None)
    measured = 100 * (row["success"] if "success" in row else row["rate"])
    said = "You made no prediction."
    if isinstance(guess, int | float):
        low, high = (100 * x for x in row["interval"])
        inside = low <= guess <= high
        said = f"You predicted {guess:.0f} %, " + (
            "inside the interval." if inside else f"{abs(guess - measured):.0f} off."
        )
    sentence = f"Measured: {rate_text(row)}. {said}"
    return Reveal(sentence, _bar(row, measured, guess, sentence))


def _bar(row: dict, measured: float, guess: object, sentence: str) -> Picture:
    fig, axes = figure(width=6.0, height=1.1)
    low, high = (100 * x for x in row["interval"])
    axes.barh([0], [measured], color=COLOURS[0], height=0.5)
    axes.errorbar(
        [measured],
        [0],
        xerr=[[max(0.0, measured - low)], [max(0.0, high - measured)]],
        color="black",
        capsize=4,
    )
    if isinstance(guess, int | float):
        axes.plot([guess], [0], "v", color=COLOURS[1], markersize=10, label="you")
        axes.legend(loc="upper right")
    axes.set_xlim(0, 100)
    axes.set_yticks([])
    label(axes, f"success, % (n = {row['n']})", "")
    return Picture(render(fig), sentence)
