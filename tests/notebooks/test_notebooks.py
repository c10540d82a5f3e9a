"""The lessons' sources: lint, and both editions as their sources say they should be."""

import ast
import functools
import importlib.util
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

from act_minimal.support.errors import UserError
from course.toolkit.checks import EXERCISES, find_exercise
from course.toolkit.predictions import reveal
from course.toolkit.questions import QUESTIONS
from course.toolkit.results import load_result

ROOT = Path(__file__).parents[2]
CODE_LINES, EXERCISE_LINES, COLUMNS, CELLS, WORDS = 12, 20, 88, 40, 120
LARGEST = 2**20  # bytes of an executed notebook


def _load_make():
    spec = importlib.util.spec_from_file_location("make", ROOT / "notebooks/make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


make = _load_make()
LESSONS = make.lessons()
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda x: x.source.stem)


@functools.cache
def cells_of(lesson):
    return make.read_source(lesson.source).cells


@functools.cache
def editions_of(lesson):
    return make.editions(lesson)


@functools.cache
def executed(lesson):
    return nbformat.read(lesson.teacher, as_version=4)


def code(lesson):
    return [cell for cell in cells_of(lesson) if cell.cell_type == "code"]


def prose(lesson):
    return [cell for cell in cells_of(lesson) if cell.cell_type == "markdown"]


def is_exercise(cell):
    return "exercise" in cell.metadata.get("tags", [])


@each_lesson
def test_cells_are_short(lesson):
    assert len(cells_of(lesson)) <= CELLS
    for cell in code(lesson):
        for source in make.split_exercise(cell.source)[:2]:
            lines = source.splitlines()
            most = EXERCISE_LINES if is_exercise(cell) else CODE_LINES
            assert len([x for x in lines if x.strip()]) <= most, cell.id
            assert max(map(len, lines)) <= COLUMNS, cell.id


@each_lesson
def test_prose_between_two_code_cells_is_short(lesson):
    words, since = 0, ""
    for cell in cells_of(lesson):
        if cell.cell_type == "code":
            words, since = 0, cell.id
        else:
            # Headings and tables are looked at, not read through.
            lines = cell.source.splitlines()
            text = [x for x in lines if not x.lstrip().startswith(("#", "|"))]
            words += len(" ".join(text).split())
        assert words <= WORDS, f"{words} words after {since}"


@each_lesson
def test_only_exercises_define_classes(lesson):
    for cell in code(lesson):
        whole = make.split_exercise(cell.source)[1]
        classes = [x for x in ast.walk(ast.parse(whole)) if isinstance(x, ast.ClassDef)]
        assert not classes or is_exercise(cell), cell.id


@each_lesson
def test_a_cell_ends_by_showing_something(lesson):
    for cell in code(lesson):
        for source in make.split_exercise(cell.source)[:2]:
            last = ast.parse(source).body[-1]
            while isinstance(last, ast.For | ast.With | ast.If):
                last = last.body[-1]
            assert isinstance(last, ast.Expr), f"{cell.id}: {ast.unparse(last)}"


@each_lesson
def test_a_lesson_has_its_shape(lesson):
    cells = cells_of(lesson)
    assert re.match(rf"# {lesson.number} · \S", cells[0].source)
    assert "{{runtime}}" in cells[0].source
    assert "minutes of work" in cells[0].source
    set_up = [c for c in code(lesson) if "course.begin(" in c.source]
    assert len(set_up) == 1
    assert set_up[0] is code(lesson)[0]
    assert f'course.begin("{lesson.number}")' in set_up[0].source
    calls = [c.source for c in code(lesson)]
    predicted, revealed, _ = (
        next(i for i, source in enumerate(calls) if f"{word}(" in source)
        for word in ("predict", "reveal", "explorer")
    )
    assert predicted < revealed
    if lesson.number != "00":
        assert any(is_exercise(c) for c in code(lesson))
    headings = " ".join(
        re.findall(r"^#+ .*$", prose_text(lesson).lower(), re.MULTILINE)
    )
    for wanted in ("fails", "summary", "next"):
        assert wanted in headings, f"no heading with {wanted!r}"


def prose_text(lesson):
    return "\n".join(cell.source for cell in prose(lesson))


@each_lesson
def test_exercises_have_a_solution_a_check_and_a_hint(lesson):
    sources = "\n".join(cell.source for cell in code(lesson))
    checked = re.findall(r'\bcheck\(\s*"([^"]+)"', sources)
    hinted = re.findall(r'\bhint\("([^"]+)"', sources)
    assert sorted(checked) == sorted(set(checked)) == sorted(set(hinted))
    for name in checked:
        assert name.startswith(f"{lesson.number}.")
        assert find_exercise(name).minutes > 0
    registered = {x for x in EXERCISES if x.startswith(f"{lesson.number}.")}
    assert registered == set(checked)
    for cell in code(lesson):
        learner, teacher, solution = make.split_exercise(cell.source)
        assert bool(solution) == is_exercise(cell), cell.id
        assert (learner != teacher) == is_exercise(cell), cell.id


@each_lesson
def test_predictions_are_asked_and_revealed(lesson):
    sources = "\n".join(cell.source for cell in code(lesson))
    for key in re.findall(r'\b(?:predict|reveal)\("([^"]+)"', sources):
        assert key in QUESTIONS


@pytest.mark.quick
def test_every_question_is_revealed_somewhere():
    sources = "\n".join(c.source for lesson in LESSONS for c in code(lesson))
    revealed = set(re.findall(r'\breveal\("([^"]+)"', sources))
    assert set(QUESTIONS) == revealed


@each_lesson
def test_figures_are_made_by_the_course(lesson):
    for cell in code(lesson):
        assert not re.search(r"pyplot|plt\.", cell.source), cell.id


@each_lesson
def test_links_lead_somewhere(lesson):
    paths = lesson.learner, lesson.teacher
    for path, edition in zip(paths, editions_of(lesson), strict=True):
        text = "\n".join(c.source for c in edition.cells if c.cell_type == "markdown")
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:|#", link):
                target = path.parent / link.partition("#")[0]
                assert target.exists(), f"{path}: {link}"


@each_lesson
def test_lessons_have_no_switch_for_tests(lesson):
    text = lesson.source.read_text()
    for word in ("environ", "CI", "nbmake", "PYTEST", "smoke"):
        assert not re.search(rf"\b{word}\b", text), word


@each_lesson
def test_the_editions_are_fresh(lesson):
    learner, teacher = editions_of(lesson)
    remedy = "run: uv run python notebooks/make.py --execute"
    assert lesson.learner.read_text() == nbformat.writes(learner) + "\n", remedy
    for old, new in zip(executed(lesson).cells, teacher.cells, strict=True):
        assert (old.id, old.cell_type) == (new.id, new.cell_type), remedy
        assert old.source == new.source, remedy


@each_lesson
def test_the_learner_gets_no_outputs(lesson):
    for cell in nbformat.read(lesson.learner, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def outputs(lesson):
    return [
        (cell.id, output)
        for cell in executed(lesson).cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]


@each_lesson
def test_the_teacher_gets_outputs_without_errors(lesson):
    assert lesson.teacher.stat().st_size <= LARGEST
    shown = {name for name, _ in outputs(lesson)}
    assert shown == {c.id for c in executed(lesson).cells if c.cell_type == "code"}
    for name, output in outputs(lesson):
        assert output.output_type != "error", name
        text = json.dumps(output)
        for word in ("Traceback", "course-error", "Warning", "not attempted", "✗"):
            assert word not in text, f"{name}: {word}"


@each_lesson
def test_what_was_revealed_is_what_the_result_files_say(lesson, tmp_path, monkeypatch):
    monkeypatch.setenv("ACT_MINIMAL_COURSE", str(tmp_path))  # nobody has predicted
    said = {name: out.get("data", {}) for name, out in outputs(lesson)}
    shown = {k: data["text/plain"] for k, data in said.items() if "text/plain" in data}
    found = 0
    for cell in code(lesson):
        for key in re.findall(r'^reveal\("([^"]+)"\)', cell.source, re.MULTILINE):
            assert shown[cell.id] == repr(reveal(key)), "run make.py --execute -f"
            found += 1
    assert found


@pytest.mark.quick
def test_a_solution_is_taken_out_and_its_stub_put_in():
    source = "def f(x):\n    # solution\n    return 2 * x\n"
    source += "    # stub\n    # ...  # y\n    # end\n\nf"
    learner, teacher, solution = make.split_exercise(source)
    assert learner == "def f(x):\n    ...  # y\n\nf"
    assert teacher == "def f(x):\n    return 2 * x\n\nf"
    assert solution == "    return 2 * x"


@pytest.mark.quick
@pytest.mark.parametrize(
    "source", ["# stub\n# end", "# solution\n1\n# end", "# solution\n1", "# end"]
)
def test_marks_out_of_order_are_refused(source):
    with pytest.raises(UserError, match=r"# (stub|solution|end)"):
        make.split_exercise(source, "04")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# %%\n1", "cell 1 is named ''"),
        ("# %% One\n1", "named 'One'"),
        ("# %% a\n1\n\n# %% a\n2", "two cells are named 'a'"),
    ],
)
def test_cells_need_names(tmp_path, text, message):
    path = tmp_path / "03_x.py"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        make.read_source(path)


@pytest.mark.quick
def test_ids_come_from_the_names_and_stay(tmp_path):
    path = tmp_path / "03_x.py"
    path.write_text("# %% one [markdown]\n# Text\n\n# %% two\n1")
    before = [cell.id for cell in make.read_source(path).cells]
    path.write_text("# %% zero\n0\n\n# %% one [markdown]\n# Else\n\n# %% two\n3")
    after = [cell.id for cell in make.read_source(path).cells]
    assert before == ["03-one", "03-two"]
    assert after == ["03-zero", "03-one", "03-two"]


@pytest.mark.quick
def test_prose_takes_its_numbers_from_the_result_files():
    said = make.fill("so {{state summary policy=act demonstrator=human}}.", "04, x")
    rows = load_result("state")["summary"]
    [row] = [r for r in rows if (r["policy"], r["demonstrator"]) == ("act", "human")]
    assert said.startswith(f"so {100 * row['success']:.0f} % (95 % interval ")
    assert f"n = {row['n']})" in said
    with pytest.raises(UserError, match=r"04, x.*nobody"):
        make.fill("{{state summary policy=nobody}}", "04, x")


@pytest.mark.quick
def test_progress_bars_are_left_out_of_executed_copies():
    for said in ("train:  10%|#  | 1/10", "short run:   0%|   | 0/300 [00:00<?]"):
        bar = nbformat.v4.new_output("display_data", data={"text/plain": said})
        assert make.is_progress(bar)
    text = nbformat.v4.new_output("display_data", data={"text/plain": "90 % (45/50)"})
    assert not make.is_progress(text)
