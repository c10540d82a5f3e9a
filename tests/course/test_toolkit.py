"""The course's machinery: checks, predictions, numbers, figures, widgets, runs."""

import base64
import copy
import io
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from act_minimal.execution import ExecutionConfig
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.video import VideoWriter
from course.figures.lesson_05_parts import Weights
from course.toolkit import checks, paths, plots, predictions, results, runs, widgets
from course.toolkit.checks import Wrong, attempt, check, hint
from course.toolkit.films import show_film
from course.toolkit.stubs import is_untouched

pytestmark = pytest.mark.quick


@pytest.fixture
def double(monkeypatch):
    """An exercise of its own: double a number."""

    def examine(function):
        answer = attempt(function, 3)
        if answer == 9:
            raise Wrong("that is the square")
        if answer != 6:
            raise Wrong("not twice the number")

    one = checks.Exercise("99.double", 2, ("add", "x + x"), "Twice it is.", examine)
    monkeypatch.setitem(checks.EXERCISES, "99.double", one)


def weights():
    return Weights({"norm.weight": torch.ones(3)})


@pytest.mark.parametrize(
    ("given", "change"),
    [
        (np.array([1.0, np.nan]), lambda x: x.fill(0)),
        (np.array([True, False]), lambda x: np.logical_not(x, out=x)),
        (torch.tensor([1.0, torch.nan]), lambda x: x.zero_()),
        (torch.ones(2), lambda x: x.resize_(1)),
        (torch.ones(2, requires_grad=True), lambda x: x.data.zero_()),
        ([1, np.zeros(2)], lambda x: x.append(3)),
        ([1, np.zeros(2)], lambda x: x[1].fill(3)),
        ((1, np.zeros(2)), lambda x: x[1].fill(3)),
        ({"a": torch.zeros(2)}, lambda x: x.pop("a")),
        ({"a": torch.zeros(2)}, lambda x: x.update(b=1)),
        ({"a": torch.zeros(2)}, lambda x: x.update(a=1)),
        ({"a": [np.zeros(2)]}, lambda x: x["a"][0].fill(1)),
        (weights(), lambda x: x["norm.weight"].zero_()),
    ],
)
def test_an_argument_that_is_changed_is_named(given, change):
    def changing(first, second):
        change(second)
        return first

    assert attempt(lambda first, second: second, 1, given) is given
    with pytest.raises(Wrong, match="argument `second`: the caller still needs it"):
        attempt(changing, 1, copy.deepcopy(given))
    with pytest.raises(Wrong, match="argument number 2: the caller"):
        attempt(lambda *both: changing(*both), 1, copy.deepcopy(given))
    assert attempt(changing, 1, given, in_place=True) == 1


def test_a_difference_is_seen_in_what_is_said():
    assert checks.told_apart(1.0, 2.0) == ("1.000", "2.000")
    assert checks.told_apart(1.0, 1.00002) == ("1.00000", "1.00002")
    assert checks.told_apart(1.0, 1.0, digits=4) == ("1.0000", "1.0000")


async def later(x):
    return 2 * x


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (None, "not attempted", "2 minutes"),
        (..., "not attempted", "hint('99.double')"),
        (lambda x: None, "not attempted", ""),
        (lambda x: ..., "not attempted", ""),
        (lambda x: (None, ...), "not attempted", ""),
        (lambda x: [None][0], "wrong", "your function returns nothing (None)"),
        (lambda x: print(2 * x), "wrong", "your function prints, but returns nothing"),
        (lambda x: [...][0], "wrong", "still returns '...'"),
        (lambda x: np.zeros(2), "wrong", "cannot be compared (ValueError: The truth"),
        (lambda x: 2 * x, "right", "Twice it is."),
        (lambda x: x * x, "wrong", "that is the square"),
        (lambda x: x, "wrong", "not twice"),
        (lambda x: torch.zeros(1, dtype=bool).mean(), "wrong", "your function raised"),
        (lambda x: x / 0, "wrong", "ZeroDivisionError: division by zero"),
        (lambda: 6, "wrong", "TypeError"),
        (lambda x: sys.exit(2), "wrong", "your function raised SystemExit: 2"),
        (later, "wrong", "your function is an `async def`: a plain `def` is wanted"),
        (6, "wrong", "a function is wanted, this is int"),
    ],
)
def test_a_check_tells_not_attempted_from_right_from_which_mistake(
    double, answer, state, says
):
    verdict = check("99.double", answer)
    assert verdict.state == state
    assert says in verdict.message
    assert state in verdict._repr_html_()
    assert state in repr(verdict)


def test_ctrl_c_is_no_answer(double):
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("99.double", interrupted)


@pytest.mark.parametrize("answers", [(), (lambda x: 2 * x, 3)])
def test_too_many_answers_are_said_in_a_sentence(double, answers):
    verdict = check("99.double", *answers)
    assert verdict.state == "wrong"
    said = (
        f"check('99.double', ...) takes 1 answer after the name, this is {len(answers)}"
    )
    assert verdict.message == said


def test_a_stub_is_known_by_what_it_does():
    def average(predictions, m):
        """Another docstring."""
        # and a remark
        pass

    class Untouched:
        def average(self): ...

    class Begun(Untouched):
        def average(self):
            self.begun = True

    begun = {"z": 1.96}
    assert is_untouched(average, "04")
    assert is_untouched(Untouched, "04")
    assert not is_untouched(Begun, "04")
    # The stub of 07.wilson begins with a line that is given.
    exec("def f(successes, n):\n z, seen = 1.96, successes / n\n ...", begun)
    assert is_untouched(begun["f"], "07")
    assert not is_untouched(begun["f"], "04")
    exec("def f(successes, n):\n z, seen = 1.64, successes / n\n ...", begun)
    assert not is_untouched(begun["f"], "07")


@pytest.mark.parametrize("text", ["7", b"7", np.array("7")])
def test_a_text_is_no_number(text):
    with pytest.raises(Wrong, match="one number is wanted, this is"):
        checks.number(text)
    with pytest.raises(Wrong, match="numbers are wanted, this is"):
        checks.numbers([text])


def test_hints_come_one_by_one_and_begin_again(double):
    said = [hint("99.double").text for _ in range(3)]
    assert said == ["Hint 1 of 2: add", "Hint 2 of 2: x + x", "Hint 1 of 2: add"]


@pytest.mark.parametrize("lesson", ["08", "09"])
def test_every_exercise_has_three_hints(lesson):
    found = [e for name, e in checks.EXERCISES.items() if name.startswith(lesson)]
    assert len(found) == 3
    assert all(len(e.hints) >= 3 for e in found)


def test_an_unknown_exercise_lists_the_known():
    with pytest.raises(SettingError, match=r"'04.nothing'.*04\.average"):
        check("04.nothing", 1)


def test_answers_are_not_read_as_html(double):
    verdict = check("99.double", lambda x: {}["<b>"])
    assert "&lt;b&gt;" in verdict._repr_html_()


@pytest.fixture
def numbers(tmp_path):
    content = {
        "summary": [
            {"k": 1, "cvae": True, "success": 0.5, "interval": [0.4, 0.6], "n": 100},
            {"k": 2, "cvae": True, "rate": 0.25, "interval": [0.2, 0.3], "n": 8},
        ],
        "speed": {"ms": 1.2345, "share": 0.3333, "each": [7, 8], "never": None},
    }
    folder = tmp_path / "results"
    (folder / "claims").mkdir(parents=True)
    for name in ("one", "claims/C99"):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("one summary k=1", "50 % (95 % interval 40-60 %, n = 100)"),
        ("claims/C99 summary k=2 cvae=true", "25 % (95 % interval 20-30 %, n = 8)"),
        ("one summary k=1 -> success percent", "50 %"),
        ("one speed -> ms 2", "1.23"),
        ("one speed -> share percent1", "33.3 %"),
        ("one speed -> each.1", "8"),
        ("one speed.ms", "1.2345"),
        ("one speed.ms -> 1", "1.2"),
        ("one speed.share -> percent", "33 %"),
        ("one speed -> never percent", "none was found"),
        ("one speed.never -> 1", "none was found"),
    ],
)
def test_a_number_in_prose(numbers, expression, text):
    assert results.look_up(expression, numbers) == text
    assert results.fill(f"x {{{{{expression}}}}} y", numbers) == f"x {text} y"


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("two summary k=1", "no result 'two'; there are: claims/C99, one"),
        ("one nothing k=1", "no 'nothing'"),
        ("one summary k=7", "0 entries of summary have {'k': 7}, expected one"),
        ("one summary", "2 entries"),
        ("one speed -> mss 2", "no 'mss'"),
    ],
)
def test_a_number_that_is_not_there(numbers, expression, says):
    with pytest.raises(results.ResultError, match=re.escape(says)):
        results.look_up(expression, numbers)


def test_prose_says_what_is_not_measured_yet(numbers):
    said = results.fill("It is {{later summary k=1}}.", numbers)
    assert said == "It is (not measured yet)."
    with pytest.raises(results.ResultError, match="k': 9"):
        results.fill("{{one summary k=9}}", numbers)


def press(widget, value):
    _, control, row = widget.children
    button, state = row.children
    control.value = value
    button.click()
    return state.value


def test_a_prediction_is_kept_and_revealed(home):
    said = press(predictions.predict("00.act"), 70)
    assert "saved" in said
    assert predictions.read_predictions() == {"00.act": 70}
    assert predictions.predict("00.act").children[1].value == 70
    row = results.find_row("state", "summary", policy="act", demonstrator="human")
    shown = predictions.reveal("00.act")
    assert f"{100 * row['success']:.0f} %" in shown.sentence
    assert "You predicted 70 %" in shown.sentence
    assert f"{abs(70 - 100 * row['success']):.0f} off" in shown.sentence
    assert "<img alt=" in shown._repr_html_()


def test_without_a_prediction_the_measurement_is_shown_all_the_same():
    assert "You made no prediction." in predictions.reveal("00.act").sentence


def test_a_choice_is_kept_and_answered():
    widget = predictions.predict("04.helps")
    assert "choose one first" in press(widget, None)
    assert predictions.read_predictions() == {}
    press(widget, "half chunks")
    assert "You predicted “half chunks”." in predictions.reveal("04.helps").sentence


def test_unknown_questions_and_damaged_files_are_named(home):
    with pytest.raises(SettingError, match=r"'00.x'.*00\.act"):
        predictions.predict("00.x")
    home.mkdir(parents=True)
    (home / "predictions.json").write_text("{")
    with pytest.raises(UserError, match=r"predictions\.json is not JSON"):
        predictions.reveal("00.act")


@pytest.mark.parametrize("value", ["NaN", "1e999", "true", "500", "-1", '"70"', "[7]"])
def test_what_cannot_be_a_prediction_counts_as_none(home, value):
    home.mkdir()
    text = f'{{"00.act": {value}, "later": 7, "04.helps": "half chunks"}}'
    (home / "predictions.json").write_text(text)
    assert "You made no prediction." in predictions.reveal("00.act").sentence
    assert predictions.predict("00.act").children[1].value == 50
    press(predictions.predict("00.act"), 70)
    kept = {"later": 7, "04.helps": "half chunks", "00.act": 70}
    assert predictions.read_predictions() == kept


def test_a_number_answers_no_choice(home):
    home.mkdir()
    (home / "predictions.json").write_text('{"04.helps": 1}')
    assert "You made no prediction." in predictions.reveal("04.helps").sentence
    assert predictions.predict("04.helps").children[1].value is None


def test_predictions_that_are_saved_at_once_are_all_kept(monkeypatch):
    keys = [f"99.{i}" for i in range(60)]
    for key in keys:
        monkeypatch.setitem(
            predictions.QUESTIONS, key, predictions.Question("How many?")
        )
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda key: predictions.save_prediction(key, 7), keys))
    assert predictions.read_predictions() == dict.fromkeys(keys, 7)


def test_what_was_measured_is_shown_without_a_folder_and_saving_says_why(
    tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACT_MINIMAL_COURSE", str(tmp_path / "file" / "course"))
    assert "You made no prediction." in predictions.reveal("00.act").sentence
    said = press(predictions.predict("00.act"), 70)
    assert said.startswith("not saved: ")
    assert "cannot be made" in said


def test_predictions_that_cannot_be_read_are_named(home):
    (home / "predictions.json").mkdir(parents=True)
    with pytest.raises(UserError, match=r"predictions\.json cannot be read"):
        predictions.reveal("00.act")


def test_a_figure_is_shown_with_its_alternative_text():
    fig, axes = plots.figure()
    axes.plot([0, 1], [0, 1])
    picture = plots.show(fig, 'A line "rises" from 0 to 1.')
    assert picture.png.startswith(b"\x89PNG")
    assert 'alt="A line &quot;rises&quot; from 0 to 1."' in picture._repr_html_()
    assert repr(picture) == '[figure: A line "rises" from 0 to 1.]'


def test_a_figure_without_words_is_refused(tmp_path):
    with pytest.raises(ValueError, match="say in a sentence"):
        plots.show(plots.figure()[0], "loss")
    with pytest.raises(ValueError, match="say in a sentence"):
        show_film(tmp_path / "x.mp4", "film")


def test_a_film_is_shown_with_its_description_and_a_still(tmp_path):
    writer = VideoWriter(tmp_path / "x.mp4", 10, (32, 48), "film")
    for k in range(10):
        writer.add(np.full((1, 32, 48, 3), 25 * k, np.uint8))
    writer.close()
    film = show_film(tmp_path / "x.mp4", 'An arm that "does" nothing.')
    data, metadata = film._repr_mimebundle_()
    shown = data["text/html"]
    alt = "An arm that &quot;does&quot; nothing."
    assert f'aria-label="{alt}"' in shown
    assert f'<img alt="{alt}"' in shown  # where a page has no films
    assert metadata["image/png"]["alt"] == 'An arm that "does" nothing.'
    mp4 = re.search(r'src="data:video/mp4;base64,([^"]+)"', shown)
    assert mp4
    assert base64.b64decode(mp4[1]) == (tmp_path / "x.mp4").read_bytes()
    posters = re.findall(r'"data:image/jpeg;base64,([^"]+)"', shown)
    for still in (*posters, data["image/png"]):
        image = Image.open(io.BytesIO(base64.b64decode(still))).convert("L")
        assert image.size == (48, 32)
        assert np.asarray(image).mean() == pytest.approx(100, abs=8)  # frame 4 of 10
    assert len(posters) == 2
    assert data["text/plain"] == repr(film) == '[film: An arm that "does" nothing.]'


def parabola():
    fig, axes = plots.figure()
    (line,) = axes.plot([], [])

    def draw(a, sign):
        if a == 3:
            raise RuntimeError("three <breaks> it")
        x = np.linspace(-1, 1, 20)
        line.set_data(x, a * x**2 * (1 if sign == "up" else -1))
        axes.set_xlim(-1, 1)
        axes.set_ylim(-10, 10)
        return fig, f"a parabola with a = {a}, {sign}"

    return widgets.Explorer(
        "How wide?",
        draw,
        a=widgets.slider("a", 0, 5, 1),
        sign=widgets.choice("opens", ["up", "down"], "up"),
    )


def test_moving_a_slider_draws_the_figure_anew():
    explorer = parabola()
    before = explorer.figure_html
    assert explorer.says == "a parabola with a = 1, up"
    explorer.set(a=4, sign="down")
    assert explorer.says == "a parabola with a = 4, down"
    assert explorer.figure_html != before
    assert 'alt="a parabola with a = 4, down"' in explorer.figure_html
    assert len(explorer.seconds) == 3
    assert explorer.errors == []


def test_an_answer_that_fails_is_seen():
    explorer = parabola().set(a=3)
    assert len(explorer.errors) == 1
    assert "three <breaks> it" in explorer.errors[0]
    assert "course-error" in explorer.figure_html
    assert "three &lt;breaks&gt; it" in explorer.figure_html
    explorer.set(a=4)
    assert "course-error" not in explorer.figure_html


def test_where_no_widget_can_live_its_figure_stands_in():
    bundle = parabola()._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    assert '<img alt="How wide? a: 1. opens: up."' in data["text/html"]
    assert '<img alt="a parabola' in data["text/html"]
    assert data["text/plain"] == "[widget: a parabola with a = 1, up]"


def test_sliders_are_whole_where_they_can_be():
    assert isinstance(widgets.slider("k", 1, 100, 50), ipywidgets.IntSlider)
    fine = widgets.slider("m", -1, 1, 0.01, 0.01)
    assert isinstance(fine, ipywidgets.FloatSlider)
    assert widgets.steps("k", [1, 5, 25], 5).options == (1, 5, 25)


def test_runs_are_made_once_and_found_again(home):
    data = runs.demonstrations(2, "scripted")
    assert data == runs.demonstrations(2, "scripted")
    assert len(list(data.glob("*.hdf5"))) == 2
    tiny = {"steps": 2, "batch_size": 4, "chunk_size": 4, "device": "cpu"}
    first = runs.trained(data, **tiny)
    again = runs.trained(data, **tiny)
    assert again.folder == first.folder
    # Not trained again: nothing is newer than before.
    before = sorted(p.stat().st_mtime_ns for p in home.rglob("*.safetensors"))
    assert runs.trained(data, **tiny).seconds == again.seconds
    assert sorted(p.stat().st_mtime_ns for p in home.rglob("*.safetensors")) == before
    other = runs.trained(data, **tiny, seed=1)
    assert other.folder.parents[1] != first.folder.parents[1]
    result = runs.rollouts(first.policy, ExecutionConfig("open_loop"), n=2)
    assert runs.rollouts(first.policy, ExecutionConfig("open_loop"), n=2) == result


def test_the_course_says_where_it_cannot_write(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACT_MINIMAL_COURSE", str(tmp_path / "file" / "course"))
    with pytest.raises(UserError, match="set ACT_MINIMAL_COURSE"):
        paths.home()


def test_a_lesson_begins_with_a_line_about_the_machine():
    said = paths.begin("04")
    assert re.match(r"Lesson 04 · torch \d", said)
    assert repr(said) == said
