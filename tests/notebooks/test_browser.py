"""The real JupyterLab in a real browser: a prediction, an exercise, a slider.

Of each lesson the cells that this needs, so that it takes seconds and not minutes.
Skipped where there is no Chromium; `.ci/run` installs one and takes a skip for a
failure.
"""

import ast
import re

import nbformat
import pytest

from benchmarks.notebooks.lab import (
    CHROMIUM,
    browser,
    find_explorer,
    jupyterlab,
    move_slider,
    run_lesson,
)
from tests.course.mutants import mutants, solved_exercises

from .test_notebooks import LESSONS, make

NUMBERS = (
    "00",
    "01",
    "04",
    "08",
    "09",
    "F1",
    "F2",
    "F3",
)  # whose sliders need little training
PAUSE = 60_000  # ms, at most: for an answer of the kernel, on a busy machine

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.timeout(2400),
]


def short(lesson):
    """The first prediction, exercise and slider of a lesson, and what they need."""
    notebook = make.editions(lesson)[0]
    notebook.cells = code = [c for c in notebook.cells if c.cell_type == "code"]
    asked = first(code, r'^predict\("(.*?)"\)')
    exercise = first(code, r'\bcheck\(\s*"(.*?)"')
    wanted = {
        "prediction": code.index(asked),
        "reveal": code.index(first(code, rf'^reveal\("{named(asked)}"\)')),
        "exercise": code.index(exercise),
        "hint": code.index(first(code, rf'^hint\("{named(exercise)}"\)')),
        "explorer": code.index(first(code, r"explorer\(|Explorer\(")),
    }
    kept = needed([cell.source for cell in code], wanted.values())
    notebook.cells = [code[i] for i in kept]
    return notebook, {name: kept.index(i) for name, i in wanted.items()}


def first(cells, pattern):
    found = (c for c in cells if re.search(pattern, c.source, re.MULTILINE))
    return next(found)


def named(cell):
    return re.findall(r'\b(?:check|predict)\(\s*"(.*?)"', cell.source)[0]


def needed(sources, wanted):
    """Numbers of the cells that these need: where their names were last given."""
    given, used = [], []
    for source in sources:
        nodes = list(ast.walk(ast.parse(source)))
        names = [node for node in nodes if isinstance(node, ast.Name)]
        defined = {x.id for x in names if isinstance(x.ctx, ast.Store)}
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            if isinstance(node, ast.Import | ast.ImportFrom):
                defined |= {(x.asname or x.name).split(".")[0] for x in node.names}
        given.append(defined)
        used.append({x.id for x in names if isinstance(x.ctx, ast.Load)})
    kept, new = set(), set(wanted)
    while new:
        kept |= new
        above = [
            next((j for j in reversed(range(i)) if name in given[j]), i)
            for i in new
            for name in used[i]
        ]
        new = set(above) - kept
    return sorted(kept)


SHORT = {lesson: short(lesson) for lesson in LESSONS if lesson.number in NUMBERS}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    for lesson, (notebook, _) in SHORT.items():
        nbformat.write(notebook, folder / f"{lesson.source.stem}.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACT_MINIMAL_COURSE", str(folder / "course"))
        with jupyterlab(folder) as address, browser() as chromium:
            yield address, chromium


@pytest.fixture
def page(lab):
    page = lab[1].new_page(viewport={"width": 1400, "height": 1000})
    yield page
    page.close()


@pytest.mark.parametrize("lesson", SHORT, ids=lambda x: x.source.stem)
def test_a_lesson_is_worked_through(lab, page, lesson):
    errors = []
    page.on("console", lambda said: said.type == "error" and errors.append(said.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    run_lesson(page, lab[0], lesson.source.stem)
    cells = page.locator(".jp-CodeCell")
    at = {name: cells.nth(i) for name, i in SHORT[lesson][1].items()}

    save_prediction(page, at["prediction"])
    at["reveal"].locator(".jp-InputPrompt").click()
    page.keyboard.press("Control+Enter")
    shows(at["reveal"], "You predicted")

    exercise = SHORT[lesson][0].cells[SHORT[lesson][1]["exercise"]]
    name = named(exercise)
    solved = solved_exercises()[name]
    words = ", ".join([f'"{name}"', *solved.answers])
    shows(at["exercise"], "not attempted")
    _, changed = next(mutants(solved.teacher))
    answer(page, at["exercise"], f"{ast.unparse(changed)}\n\ncheck({words})", "✗ wrong")
    at["hint"].locator(".jp-InputPrompt").click()
    page.keyboard.press("Control+Enter")
    shows(at["hint"], "Hint 2 of")
    answer(page, at["exercise"], f"{solved.teacher}\n\ncheck({words})", "✓ right")

    explorer = find_explorer(page)
    images = explorer.locator("img[alt]")
    before = images.first.get_attribute("src")
    handle = explorer.locator(".noUi-handle").first
    handle.focus()
    now, most = (handle.get_attribute(f"aria-value{name}") for name in ("now", "max"))
    page.keyboard.press("ArrowRight" if float(now) < float(most) else "ArrowLeft")
    page.wait_for_function(
        "([box, src]) => (box.querySelector('img[alt]') || {src}).src !== src",
        arg=[explorer.element_handle(), before],
        timeout=PAUSE,
    )
    assert move_slider(explorer) > 0
    assert page.locator(".course-error").count() == 0
    assert "Traceback" not in page.locator(".jp-Notebook").inner_text()
    assert page.get_by_text("official Jupyter news").count() == 0
    assert errors == []


def save_prediction(page, cell):
    choices = cell.locator("input[type=radio]")
    if choices.count():
        choices.first.click()
    else:
        cell.locator(".noUi-handle").first.focus()
        page.keyboard.press("ArrowRight")
    cell.get_by_role("button", name="Save my prediction").click()
    shows(cell, "saved; the lesson will come back to it")


def answer(page, cell, source, says):
    """Write another answer into a cell, and run it."""
    cell.locator(".cm-content").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)
    page.keyboard.press("Control+Enter")
    shows(cell, says)


def shows(cell, text):
    """Wait until a cell's output holds a text."""
    found = cell.locator(".jp-OutputArea").get_by_text(text)
    found.first.wait_for(timeout=PAUSE)
