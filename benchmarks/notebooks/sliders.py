"""How long a slider takes to answer, in the real JupyterLab and a real browser.

    uv run python -m benchmarks.notebooks.sliders
    uv run python -m benchmarks.notebooks.sliders --only 08   # the rest stays

From the key press on the first slider of each lesson to the new figure on the screen.
"""

import time

import numpy as np
import tyro

from act_minimal.command.course import notebooks
from act_minimal.support.files import read_json

from ..results import RESULTS, ROOT, write
from .lab import browser, find_explorer, jupyterlab, move_slider, run_lesson

PRESSES = 40


def main(only: tuple[str, ...] = ()) -> None:
    """Write data/results/sliders.json.

    Args:
        only: numbers of lessons; by default all.
    """
    start = time.perf_counter()
    places = (path.relative_to(ROOT / "notebooks") for path in notebooks())
    names = [place.with_suffix("").as_posix() for place in places]
    rows = []
    if only:
        names = [name for name in names if name.rpartition("/")[2][:2] in only]
        before = read_json(RESULTS / "sliders.json")["lessons"]
        rows = [row for row in before if row["lesson"] not in names]
    with jupyterlab() as address, browser() as chromium:
        for name in names:
            page = chromium.new_page(viewport={"width": 1400, "height": 1000})
            run_lesson(page, address, name)
            explorer = find_explorer(page)
            times = []
            for _ in range(PRESSES):
                times.append(move_slider(explorer))
                page.wait_for_timeout(50)
            page.close()
            low, middle, high = np.percentile(times, [5, 50, 95])
            rows.append(
                {"lesson": name, "n": PRESSES, "ms_median": middle}
                | {"ms_p5": low, "ms_p95": high}
            )
            print(rows[-1], flush=True)
    rows.sort(key=lambda row: row["lesson"])
    write("sliders", time.perf_counter() - start, {"lessons": rows})


if __name__ == "__main__":
    tyro.cli(main)
