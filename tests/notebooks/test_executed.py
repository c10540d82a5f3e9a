"""The executed editions where no JavaScript runs and data URIs are taken out.

As a page of HTML, and as a code host shows a notebook.
"""

import base64
import functools
import re
from html.parser import HTMLParser

import bleach
import nbformat
import pytest
from nbconvert import HTMLExporter

from .test_notebooks import LESSONS, executed, make

TAGS = {*bleach.ALLOWED_TAGS, "p", "div", "span", "pre", "br", "img", "h3", "h4"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
RAW = (
    r"\w+\(children=|<[\w.]+ object at 0x|^<(function|class|module|bound) |^array\(|"
    r"^tensor\(|^'.*'$|^\{'|^\[.*\bobject at"
)
FOLDER = r"(?<![\w.:/])/(home|root|tmp|Users|work)/"  # of the machine that ran it

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda x: x.source.stem)


class Seen(HTMLParser):
    """What a reader sees without JavaScript: text, pictures, films."""

    def __init__(self, page: str):
        super().__init__()
        self.hidden, self.text, self.pictures, self.films = 0, "", [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        self.hidden += tag in ("script", "style")
        self.films += tag == "video"
        if tag == "img" and about.get("src"):
            self.pictures.append(about.get("alt") or "")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.hidden:
            self.text += data

    def __bool__(self):
        return bool(self.text.strip() or self.pictures or self.films)


@functools.cache
def exporter():
    return HTMLExporter(
        template_name="basic", exclude_input=True, exclude_output_prompt=True
    )


def without_javascript(cell):
    """A cell's outputs as nbconvert makes HTML of them."""
    page = nbformat.v4.new_notebook(cells=[cell])
    return Seen(exporter().from_notebook_node(page)[0])


def on_a_code_host(output):
    """One output after a sanitising renderer: the richest kind that it knows."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "text/html" in data:
        return Seen(bleach.clean(data["text/html"], TAGS, strip=True))
    if "image/png" in data:
        alt = output.metadata.get("image/png", {}).get("alt", "")
        return Seen(f'<img src="picture" alt="{alt}">')
    return Seen(bleach.clean(data.get("text/plain", "")))


def code_cells(lesson):
    return [cell for cell in executed(lesson).cells if cell.cell_type == "code"]


@each_lesson
def test_without_javascript_every_cell_shows_something(lesson):
    for cell in code_cells(lesson):
        seen = without_javascript(cell)
        assert seen, cell.id
        for alt in seen.pictures:
            assert len(alt.split()) >= 4, f"{cell.id}: {alt}"
            assert "No description" not in alt, cell.id


@each_lesson
def test_a_code_host_shows_every_output(lesson):
    pictures = 0
    for cell in code_cells(lesson):
        for output in cell.outputs:
            seen = on_a_code_host(output)
            assert seen, cell.id
            assert "(children=" not in seen.text, cell.id
            pictures += len(seen.pictures)
    assert pictures


@each_lesson
def test_pictures_are_outputs_of_their_own(lesson):
    for cell in code_cells(lesson):
        films = 0
        for output in cell.outputs:
            data = output.get("data", {})
            text = data.get("text/html", "")
            assert not re.search(r"<script|<img[^>]*\bdata:", text), cell.id
            assert len(data.keys() & {"text/html", "image/png"}) <= 1, cell.id
            assert data.keys() <= {"text/html", "image/png", "text/plain"}, cell.id
            films += "<video" in text
            if "image/png" in data:
                png = base64.b64decode(data["image/png"])
                assert png.startswith(b"\x89PNG"), cell.id
                alt = output.metadata["image/png"]["alt"]
                assert len(alt.split()) >= 4, f"{cell.id}: {alt}"
        shown = [x for x in cell.outputs if "image/png" in x.get("data", {})]
        assert len(shown) >= films, f"{cell.id}: a film without its poster"


@each_lesson
def test_widgets_and_predictions_have_their_picture(lesson):
    assert "widgets" not in executed(lesson).metadata
    for cell in code_cells(lesson):
        if re.search(r"(?m)^(predict|explore)\w*\(|explorer", cell.source):
            shown = [out for out in cell.outputs if "image/png" in out.get("data", {})]
            assert shown, cell.id


@each_lesson
def test_no_output_is_a_raw_repr(lesson):
    for cell in code_cells(lesson):
        for output in cell.outputs:
            data = output.get("data", {})
            if not data.keys() & {"text/html", "image/png"}:
                said = data.get("text/plain", output.get("text", ""))
                assert not re.search(RAW, said), f"{cell.id}: {said[:80]}"
                assert not re.search(FOLDER, said), f"{cell.id}: {said[:80]}"


# --- how make.py gets there -----------------------------------------------------------

PNG = base64.b64encode(b"\x89PNG").decode()
WIDGET = "application/vnd.jupyter.widget-view+json"


def shown(text, plain="[figure: x]", **more):
    data = {"text/html": text, "text/plain": plain} | more
    return make.visible(
        nbformat.v4.new_output("execute_result", data, execution_count=7)
    )


@pytest.mark.quick
def test_pictures_are_taken_out_of_html():
    image = f'<img alt="a &quot;b&quot;" src="data:image/png;base64,{PNG}" style="x">'
    first, second, third = shown(f"<p>says</p>{image}<p></p><p>more</p>")
    assert first.data == {"text/html": "<p>says</p>", "text/plain": "says"}
    assert (first.output_type, first.execution_count) == ("execute_result", None)
    assert second.data == {"image/png": PNG, "text/plain": "[figure: x]"}
    assert second.metadata == {"image/png": {"alt": 'a "b"'}}
    assert third.output_type == "display_data"
    assert "more" in third.data["text/html"]
    assert make.visible(second) == [second]


@pytest.mark.quick
def test_a_film_stands_below_its_still():
    uri = f'"data:image/jpeg;base64,{PNG}"'
    film = f'<video controls poster={uri} title="arm"><img alt="arm" src={uri}></video>'
    about = {"image/png": {"alt": "an arm moves"}}
    data = {"text/html": film, "image/png": PNG, "text/plain": "[film]"}
    output = nbformat.v4.new_output("execute_result", data, metadata=about)
    still, after = make.visible(output)
    assert still.data == {"image/png": PNG, "text/plain": "[film]"}
    assert still.metadata == about
    video = '<video controls title="arm">arm</video>'
    assert after.data == {"text/html": video, "text/plain": "[film]"}


@pytest.mark.quick
def test_of_a_widget_the_picture_is_kept():
    image = f'<img alt="it" src="data:image/png;base64,{PNG}">'
    [only] = shown(image, **{WIDGET: {"model_id": "7"}})
    assert only.data == {"image/png": PNG, "text/plain": "[figure: x]"}
    [bare] = shown("<p>right</p>", **{WIDGET: {"model_id": "7"}})
    assert bare.data == {"text/html": "<p>right</p>", "text/plain": "[figure: x]"}
