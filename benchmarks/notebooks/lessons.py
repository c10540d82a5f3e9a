"""How long each lesson runs: first from nothing, then the other edition after it.

    uv run python -m benchmarks.notebooks.lessons
    uv run python -m benchmarks.notebooks.lessons --only 08   # the rest stays

Each lesson starts with an empty folder for what it makes, as on the first day.
"""

import os
import tempfile
import time
from pathlib import Path

import nbformat
import tyro
from nbclient import NotebookClient

from act_minimal.command.course import notebooks
from act_minimal.support.files import read_json

from ..results import RESULTS, write

LESSONS = RESULTS / "lessons.json"
FOLDERS = {"first_run_seconds": ".", "again_seconds": "solutions"}


def main(only: tuple[str, ...] = ()) -> None:
    """Write data/results/lessons.json.

    Args:
        only: numbers of lessons; by default all.
    """
    start = time.perf_counter()
    lessons = read_json(LESSONS)["lessons"] if only else {}
    for path in notebooks():
        if only and path.stem[:2] not in only:
            continue
        row: dict[str, float] = {"n": 1}
        with tempfile.TemporaryDirectory() as home:
            os.environ["ACT_MINIMAL_COURSE"] = home
            for name, folder in FOLDERS.items():
                row[name] = run(path.parent / folder / path.name)
        lessons[path.stem[:2]] = row
        print(path.stem, row, flush=True)
    total = sum(sum(row[name] for name in FOLDERS) for row in lessons.values())
    write(
        "lessons",
        time.perf_counter() - start,
        {"all_seconds": total, "lessons": lessons},
    )


def run(path: Path) -> float:
    """Seconds that a notebook takes from top to bottom."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    start = time.perf_counter()
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=resources
    ).execute()
    return round(time.perf_counter() - start, 1)


if __name__ == "__main__":
    tyro.cli(main)
