"""The pages for readers and teachers: what they name exists, and nothing is missing."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCES = sorted((ROOT / "notebooks" / "src").glob("[0-9][0-9]_*.py"))


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
