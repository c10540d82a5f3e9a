"""Widgets as pictures: every control is drawn where it stands."""

import io

import ipywidgets
import pytest
from PIL import Image

from course.toolkit import plots, predictions, widgets
from course.toolkit.stills import still

pytestmark = pytest.mark.quick


def nothing(a, sign):
    return plots.figure()[0], f"a = {a}, {sign}"


def explorer():
    return widgets.Explorer(
        "How wide?",
        nothing,
        a=widgets.slider("a", 0, 5, 1),
        sign=widgets.choice("opens", ["up", "down"], "up"),
    )


def drawn(widget):
    bundle = widget._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    return data["text/html"].partition(">")[0]  # the picture of the controls


def test_the_picture_of_a_widget_shows_where_its_controls_stand():
    one = explorer()
    seen = {drawn(one.set(a=a, sign=s)) for a in (1, 5) for s in ("up", "down")}
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("control", "moved", "words"),
    [
        (widgets.slider("k", 1, 100, 50), 100, "k: 50."),
        (widgets.slider("m", 0, 1, 0.25, 0.01), 0.75, "m: 0.25."),
        (widgets.steps("h", [("one", 1), ("ten", 10)], 10), 1, "h: ten."),
        (widgets.choice("first", ["old", "new"], "new"), "old", "first: new."),
        (ipywidgets.RadioButtons(options=["a", "b"]), "b", "Choices: a; b."),
        (ipywidgets.Checkbox(value=True, description="see"), False, "see: True."),
    ],
)
def test_every_control_is_drawn_where_it_stands(control, moved, words):
    before = still("Why?", [control])
    assert before.alt == f"Why? {words}"
    control.value = moved
    after = still("Why?", [control])
    assert after.png != before.png
    height = Image.open(io.BytesIO(after.png)).height
    assert Image.open(io.BytesIO(still("Why?", [control], "Save").png)).height > height


def test_a_prediction_has_a_picture(home):
    empty = drawn(predictions.predict("04.helps"))
    assert "Choices: the ensemble; half chunks; no difference" in empty
    assert empty.startswith('<img alt="The same policy, executed by halves')
    predictions.save_prediction("04.helps", "half chunks")
    assert drawn(predictions.predict("04.helps")) != empty
    assert "%: 50." in drawn(predictions.predict("00.act"))
