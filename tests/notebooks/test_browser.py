"""The real JupyterLab in a real browser: run a lesson, move a slider, see the figure.

Skipped where there is no Chromium; `.ci/run` installs one and takes a skip for a
failure.
"""

import pytest

from benchmarks.notebooks.lab import (
    CHROMIUM,
    browser,
    find_explorer,
    jupyterlab,
    move_slider,
    run_lesson,
)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.timeout(2400),
]


@pytest.fixture(scope="module")
def lab():
    with jupyterlab() as address, browser() as chromium:
        yield address, chromium


@pytest.mark.parametrize("name", ["02_action_chunking", "04_temporal_ensembling"])
def test_moving_the_slider_changes_the_figure(lab, name):
    address, chromium = lab
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    try:
        run_lesson(page, address, name)
        explorer = find_explorer(page)
        image = explorer.locator("img[alt]").first
        before = [image.get_attribute(x) for x in ("src", "alt")]
        move_slider(explorer)
        assert image.get_attribute("src") != before[0]
        assert image.get_attribute("alt") != before[1]
        assert page.locator(".course-error").count() == 0
        assert "Traceback" not in page.locator(".jp-Notebook").inner_text()
    finally:
        page.close()
