"""The real JupyterLab in a real browser, driven by Playwright."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from act_minimal.command.course import lab_environment
from act_minimal.support.files import write_bytes, write_json

from ..results import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
START = 300  # s, at most: for JupyterLab or a kernel to start
RUN = 900  # s, at most: for a lesson to run

# Whether every code cell has been run: [*] is running, [ ] is waiting.
ALL_DONE = r"""() => {
  const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];
  return prompts.length && prompts.every(x => /\[\d+\]/.test(x.textContent));
}"""


@contextmanager
def jupyterlab(notebooks: Path = ROOT / "notebooks") -> Iterator[str]:
    """JupyterLab over a copy of a folder's notebooks; yields "address?token".

    By default the learner's, as `act course` shows them.

    Raises:
        RuntimeError: it does not start; with its log.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "notebooks"
        folder.mkdir()
        for path in (*notebooks.glob("*.ipynb"), *notebooks.glob("further/*.ipynb")):
            (folder / path.relative_to(notebooks)).parent.mkdir(exist_ok=True)
            write_bytes(folder / path.relative_to(notebooks), path.read_bytes())
        settings = Path(name) / "settings"
        # All cells in the page, not only those on the screen.
        tracker = settings / "@jupyterlab" / "notebook-extension"
        told = {"windowingMode": "none"}
        write_json(tracker / "tracker.jupyterlab-settings", told)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = lab_environment() | {
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(Path(name) / "workspaces"),
        }
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        command += [f"--notebook-dir={folder}", f"--port={port}", "--log-level=ERROR"]
        command += ["--IdentityProvider.token=local"]
        log = Path(name) / "lab.log"
        with log.open("w", encoding="utf-8") as file:
            server = subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            end = time.monotonic() + START
            while not _listens(port):
                if server.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(
                        f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')}"
                    )
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}.ipynb?token=local&reset"
        finally:
            server.terminate()
            server.wait(START)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


def run_lesson(page: Any, address: str, name: str) -> None:
    """Open a lesson and run all its cells."""
    page.set_default_timeout(1000 * START)
    page.goto(address.format(name))
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=1000 * START)
    # Before that, "Run All Cells" does nothing.
    page.wait_for_selector(r"text=/Python 3.* \| Idle/", timeout=1000 * START)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(ALL_DONE, timeout=1000 * RUN)


def find_explorer(page: Any) -> Any:
    """The first box of widgets that holds both a slider and a figure."""
    boxes = page.locator(".widget-vbox").filter(has=page.locator(".noUi-handle"))
    explorer = boxes.filter(has=page.locator("img[alt]")).first
    explorer.scroll_into_view_if_needed()
    return explorer


# From the key's arrival to the first frame painted with another figure, in ms.
PRESS = """([box, key]) => new Promise((done, fail) => {
  const handle = box.querySelector('.noUi-handle');
  const before = box.querySelector('img[alt]').src;
  const start = performance.now();
  const watch = new MutationObserver(() => {
    const image = box.querySelector('img[alt]');
    if (image && image.src !== before) {
      watch.disconnect();
      requestAnimationFrame(() => done(performance.now() - start));
    }
  });
  watch.observe(box, {subtree: true, childList: true, attributes: true});
  setTimeout(() => { watch.disconnect(); fail('no other figure in 60 s'); }, 60000);
  handle.dispatchEvent(new KeyboardEvent('keydown', {key: key, bubbles: true}));
})"""


def move_slider(explorer: Any) -> float:
    """Move the first slider by a step; ms until the new figure is painted.

    To the right, or to the left where it is at its end.
    """
    handle = explorer.locator(".noUi-handle").first
    now, most = (
        float(handle.get_attribute(f"aria-value{name}")) for name in ("now", "max")
    )
    key = "ArrowRight" if now < most else "ArrowLeft"
    return explorer.evaluate("(box, key) => (" + PRESS + ")([box, key])", key)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
