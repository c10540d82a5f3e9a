"""Make both editions of each lesson from its source in notebooks/src.

    uv run python notebooks/make.py             # the learner's, and prose in both
    uv run python notebooks/make.py --execute   # and run the teacher's where it changed

A source is py:percent; each cell has a name, from which its id is made. In a code cell,

    # solution
    weights = np.exp(-m * np.arange(n))
    # stub
    # weights = ...
    # end

the learner gets the stub, the teacher the solution. In prose, {{state summary
policy=act demonstrator=human}} becomes that entry of data/results/state.json.
"""

import html
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm import tqdm

from act_minimal.support.errors import UserError
from act_minimal.support.files import write_text
from course.toolkit import results
from course.toolkit.results import RESULTS, ResultError
from course.toolkit.stubs import split_exercise

HERE = Path(__file__).parent
FURTHER = HERE / "further"  # lessons beyond the deployment: F1, F2, ...
RUN_TIMES = RESULTS / "lessons.json"
TIMEOUT = 600  # s a cell
VIDEO = re.compile(r"<video\b")
DATA_IMAGES = re.compile(r' poster="data:[^"]*"|<img\b[^>]*\bsrc="data:[^>]*>')
PICTURE = re.compile(r'(<img\b[^>]*\bsrc="data:image/png;base64,[^>]*>)')


@dataclass(frozen=True)
class Lesson:
    """One source, and the two notebooks made of it."""

    source: Path

    @property
    def number(self) -> str:
        return self.source.stem[:2]

    @property
    def learner(self) -> Path:
        return self.source.parents[1] / f"{self.source.stem}.ipynb"

    @property
    def teacher(self) -> Path:
        return self.source.parents[1] / "solutions" / f"{self.source.stem}.ipynb"


def lessons() -> list[Lesson]:
    """All lessons, in order."""
    found = sorted((HERE / "src").glob("[0-9][0-9]_*.py"))
    found += sorted((FURTHER / "src").glob("F[0-9]_*.py"))
    return [Lesson(path) for path in found]


# --- from source to cells -------------------------------------------------------------


def read_source(path: Path) -> NotebookNode:
    """The cells of a source, each with its stable id.

    Raises:
        UserError: a cell has no name, or two have the same.
    """
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    seen: set[str] = set()
    for i, cell in enumerate(notebook.cells):
        name = cell.metadata.pop("title", "")
        if not re.fullmatch(r"[a-z0-9-]+", name):
            raise UserError(
                f"{path.name}: cell {i + 1} is named {name!r}, expected '# %% a-name'"
            )
        if name in seen:
            raise UserError(f"{path.name}: two cells are named {name!r}")
        seen.add(name)
        cell.id = f"{path.stem[:2]}-{name}"
    return notebook


def fill(text: str, where: str) -> str:
    """Prose with its numbers.

    Raises:
        UserError: a number that the result files do not hold.
    """
    text = text.replace("{{runtime}}", run_time(where[:2]))
    try:
        return results.fill(text)
    except ResultError as error:
        raise UserError(f"{where}: {error}") from error


def run_time(number: str) -> str:
    """How long a lesson takes to run, as it was measured."""
    found = (
        json.loads(RUN_TIMES.read_text(encoding="utf-8"))["lessons"]
        if RUN_TIMES.exists()
        else {}
    )
    if number not in found:
        return "run time not measured yet"
    seconds = found[number]["first_run_seconds"]
    words = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"
    return f"runs in {words} on two cores"


def editions(lesson: Lesson) -> tuple[NotebookNode, NotebookNode]:
    """The learner's and the teacher's notebook, without outputs."""
    learner, teacher = new_notebook(), new_notebook()
    for cell in read_source(lesson.source).cells:
        where = f"{lesson.source.name}, {cell.id}"
        if cell.cell_type == "markdown":
            text = fill(cell.source, where)
            deeper = text.replace("](../", "](../../")  # the teacher's folder is
            for notebook, prose in ((learner, text), (teacher, deeper)):
                notebook.cells.append(nbformat.v4.new_markdown_cell(prose, id=cell.id))
            continue
        stub, whole, solution = split_exercise(cell.source, where)
        for notebook, source in ((learner, stub), (teacher, whole)):
            one = nbformat.v4.new_code_cell(source, id=cell.id)
            one.metadata = cell.metadata
            notebook.cells.append(one)
        if solution:
            text = (
                "<details><summary>The solution, one click away</summary>\n\n"
                f"```python\n{whole}\n```\n\n</details>"
            )
            more = nbformat.v4.new_markdown_cell(text, id=f"{cell.id}-solution")
            learner.cells.append(more)
    return learner, teacher


def new_notebook() -> NotebookNode:
    """An empty notebook for this course's kernel."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(metadata=metadata)


# --- the teacher's outputs ------------------------------------------------------------


def code_of(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Ids and sources of the code cells."""
    return [(c.id, c.source) for c in notebook.cells if c.cell_type == "code"]


def with_outputs_of(fresh: NotebookNode, old: NotebookNode) -> NotebookNode:
    """The same notebook with the outputs of an earlier run of the same code."""
    outputs = {cell.id: cell.outputs for cell in old.cells if cell.cell_type == "code"}
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs = [part for out in outputs[cell.id] for part in visible(out)]
    return fresh


def execute(notebook: NotebookNode, folder: Path) -> float:
    """Run a notebook from top to bottom, in place; returns the seconds it took."""
    start = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    seconds = time.perf_counter() - start
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            kept = [out for out in cell.outputs if not is_progress(out)]
            cell.outputs = [part for out in kept for part in visible(out)]
    notebook.metadata.pop("widgets", None)
    return seconds


def is_progress(output: NotebookNode) -> bool:
    """Whether an output is a progress bar, which says nothing once it is full."""
    if output.output_type == "stream":
        return output.name == "stderr"
    text = str(output.get("data", {}).get("text/plain", ""))
    return bool(re.match(r"[^%|]*\d+%\|", text))


def visible(output: NotebookNode) -> list[NotebookNode]:
    """An output as code hosts can show it, without what changes from run to run.

    They run no scripts, so of a widget its picture is kept. They take data URIs out of
    HTML, so each picture in it becomes an output of its own, with its alternative text
    as metadata, and a film stands below its still.
    """
    if "execution_count" in output:
        output.execution_count = None
    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)
    text, plain = "".join(data.get("text/html", "")), data.get("text/plain", "")
    shown: list[tuple[dict, dict]] = []
    if "image/png" in data and text:
        still = {"image/png": data["image/png"], "text/plain": plain}
        shown.append((still, output.metadata))
        if VIDEO.search(text):
            film = DATA_IMAGES.sub(lambda found: _attribute(found[0], "alt"), text)
            shown.append(({"text/html": film, "text/plain": plain}, {}))
    elif PICTURE.search(text):
        for piece in PICTURE.split(text):
            words = html.unescape(re.sub(r"<[^>]*>", "", piece)).strip()
            if PICTURE.match(piece):
                png = _attribute(piece, "src").partition("base64,")[2]
                about = {"image/png": {"alt": html.unescape(_attribute(piece, "alt"))}}
                shown.append(({"image/png": png, "text/plain": plain}, about))
            elif words:
                shown.append(({"text/html": piece, "text/plain": words}, {}))
    kinds = [output.output_type, *["display_data"] * len(shown)]
    return [
        nbformat.v4.new_output(kind, one, metadata=about)
        for kind, (one, about) in zip(kinds, shown, strict=False)
    ] or [output]


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return found[1] if found else ""


# --- files ----------------------------------------------------------------------------


def write_notebook(path: Path, notebook: NotebookNode) -> None:
    """Write it whole, or not at all; a file that would not change is left alone."""
    text = nbformat.writes(notebook) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def main(words: list[str]) -> None:
    """Make what is asked for; names of lessons ("04") choose some of them."""
    chosen = [word for word in words if not word.startswith("-")]
    for lesson in tqdm(lessons(), desc="lessons"):
        if chosen and lesson.number not in chosen:
            continue
        learner, teacher = editions(lesson)
        write_notebook(lesson.learner, learner)
        old = None
        if lesson.teacher.exists():
            old = nbformat.read(lesson.teacher, as_version=4)
        if old is not None and code_of(old) == code_of(teacher) and "-f" not in words:
            write_notebook(lesson.teacher, with_outputs_of(teacher, old))
        elif "--execute" in words:
            lesson.teacher.parent.mkdir(exist_ok=True)
            seconds = execute(teacher, lesson.teacher.parent)
            write_notebook(lesson.teacher, teacher)
            tqdm.write(f"{lesson.source.stem}: {seconds:.0f} s")
        else:
            tqdm.write(f"{lesson.teacher} is stale: --execute runs it again")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"make: {error}")
