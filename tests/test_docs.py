"""The pages for readers and teachers: what they name exists, and nothing is missing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mostly_quick

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCES = sorted((ROOT / "notebooks").rglob("src/[0-9F][0-9]_*.py"))


def rows_of(text: str, head: str) -> list[list[str]]:
    """The rows, as cells, of all tables whose first row begins with `head`."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("# ").split("|")[1:-1]]
        if not cells:
            inside = False
        elif not inside:
            inside = line.strip("# ").lower().startswith(f"| {head} |")
        elif set("".join(cells)) - set("-: "):
            found.append(cells)
    return found


def symbols(cell: str) -> set[str]:
    """`$p$, $\\hat p = s/n$` holds p and \\hat p."""
    plain = re.sub(r"[$`]", "", cell)
    return {re.sub(r"\s*=.*", "", one).strip() for one in re.split(r",\s*", plain)}


def glossary() -> set[str]:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    rows = rows_of(text, "symbol") + rows_of(text, "term")
    return {symbol for row in rows for symbol in symbols(row[0])}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_glossary_has_every_symbol_of_the_lessons(source):
    text = source.read_text(encoding="utf-8")
    rows = [row for head in ("sign", "symbol", "word") for row in rows_of(text, head)]
    assert rows, "no table of notation"
    wanted = {symbol for row in rows for symbol in symbols(row[0])}
    assert wanted <= glossary(), f"not in docs/glossary.md: {wanted - glossary()}"


def test_symbols_are_read_from_cells():
    assert symbols(r"$p$, $\hat p = s/n$") == {"p", r"\hat p"}
    assert symbols(r"$q, \dot q$") == {"q", r"\dot q"}
    assert symbols("β, `kl_weight`") == {"β", "kl_weight"}
    assert rows_of("# | sign | x |\n# |---|---|\n# | a | b |\n#\n# | c | d |", "sign")
    assert {"β", r"w_i", "is_pad", "receding horizon"} <= glossary()


def test_every_entry_of_the_glossary_has_a_meaning():
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    rows = rows_of(text, "symbol") + rows_of(text, "term")
    assert len(rows) > 90
    for row in rows:
        assert len(row[-1]) > 10, row
    for words in ("Action recognition", "Sequence-to-sequence", "Reinforcement"):
        assert f"**{words}" in text


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/instructors.md", "docs/results.md", "docs/architecture.md"],
)
def test_pages_link_to_the_glossary(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.search(r"\]\((docs/)?glossary\.md\)", text)


# --- what carries the conclusions of the lessons --------------------------------------


def evidence() -> list[tuple[str, str, list[str], list[str]]]:
    """Lesson, conclusion, and the names of cells and of results that carry it."""
    text = (DOCS / "instructors.md").read_text(encoding="utf-8")
    found = []
    for lesson, conclusion, cells, results in rows_of(text, "lesson | conclusion"):
        names = [re.findall(r"`([^`]+)`", cell) for cell in (cells, results)]
        found.append((lesson, conclusion, *names))
    return found


def test_conclusions_are_carried_by_cells_and_results_that_exist():
    for lesson, conclusion, cells, results in evidence():
        [source] = [path for path in SOURCES if path.name.startswith(lesson)]
        text = source.read_text(encoding="utf-8")
        code = set(re.findall(r"^# %% ([a-z0-9-]+)(?: tags.*)?$", text, re.MULTILINE))
        assert cells or results, f"{lesson}: nothing carries '{conclusion}'"
        assert set(cells) <= code, f"{lesson}: no code cell {set(cells) - code}"
        for name in results:
            path = ROOT / "data" / "results" / f"{name}.json"
            assert path.exists(), f"{lesson}: no result {name}"


def test_every_lesson_has_conclusions():
    lessons = [lesson for lesson, *_ in evidence()]
    assert lessons == sorted(lessons)
    assert set(lessons) == {source.name[:2] for source in SOURCES}


# --- how notebooks are marked ---------------------------------------------------------

HANDED_IN = """
from course import capstone, check, reveal
{function}
# cell
check("05.split-heads", {name})
# cell
print(capstone.pieces().yours, reveal("00.act"))
"""
RIGHT = "def mine(x, h):\n    return x.unflatten(-1, (h, -1)).transpose(1, 2)"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the commands are bash")
def test_marking_keeps_students_apart_and_leaves_the_teacher_s_pieces(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    text = (DOCS / "instructors.md").read_text(encoding="utf-8")
    page = text.partition("## Marking")[2].partition("\n## ")[0]
    blocks = dict(re.findall(r"```(bash|python)\n(.*?)```", page, re.DOTALL))
    for student, name in (("anna", "mine"), ("ben", "...")):
        cells = HANDED_IN.format(function=RIGHT, name=name).split("# cell\n")
        made = [nbformat.v4.new_code_cell(cell.strip()) for cell in cells]
        folder = tmp_path / "handed_in" / student
        folder.mkdir(parents=True)
        nbformat.write(nbformat.v4.new_notebook(cells=made), folder / "05.ipynb")
    (tmp_path / "handed_in/anna/predictions.json").write_text('{"00.act": 3}')
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "my_act.py").write_text("# the teacher's\n")
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text('#!/bin/sh\nshift\nexec "$@"\n')  # `uv run` in this environment
    uv.chmod(0o755)
    places = [str(uv.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {
        "PATH": os.pathsep.join(places),
        "ACT_MINIMAL_COURSE": str(teacher),
    }
    printed = [
        subprocess.run(
            words, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE
        ).stdout.decode()
        for words in (
            ["bash", "-c", blocks["bash"]],
            [sys.executable, "-c", blocks["python"]],
        )
    ]
    anna, ben = printed[-1].splitlines()
    assert "anna 05.ipynb ['✓ 05.split-heads: right" in anna
    assert 'ben 05.ipynb ["○ 05.split-heads: not attempted' in ben
    said = [
        (tmp_path / f"marked/{student}/05.ipynb").read_text(encoding="utf-8")
        for student in ("anna", "ben")
    ]
    assert "('split_heads',)" in said[0]
    assert "You predicted 3 %" in said[0]
    assert "You made no prediction" in said[1]
    assert "('split_heads',)" not in said[1]
    assert [path.name for path in teacher.iterdir()] == ["my_act.py"]
    assert (teacher / "my_act.py").read_text() == "# the teacher's\n"
