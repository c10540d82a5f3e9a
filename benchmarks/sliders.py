"""How long a slider takes to answer, in the real JupyterLab and a real browser.

    uv run python -m benchmarks.sliders

From the key press on the first slider of each lesson to the new figure on the screen.
"""

import time

import numpy as np

from benchmarks.lab import browser, find_explorer, jupyterlab, move_slider, run_lesson
from benchmarks.results import ROOT, write

PRESSES = 40


def main() -> None:
    """Write data/results/sliders.json."""
    start = time.perf_counter()
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    rows = []
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
    write(
        "sliders",
        time.perf_counter() - start,
        {"goal": {"ms_median": 100, "ms_p95": 250}, "lessons": rows},
    )


if __name__ == "__main__":
    main()
