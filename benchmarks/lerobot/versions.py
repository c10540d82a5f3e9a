"""Several releases of LeRobot, unchanged, against everything here that it can meet.

    uv run python -m benchmarks.lerobot.versions 0.4.4 0.6.1

Each release gets an environment of its own (`tests/lerobot_environment.py`; from 0.5 on
it needs a Python 3.12 that uv finds). In it run the tests that start LeRobot: its
followers on the virtual arms, its dataset class on our datasets and ours on its, its
ACT on our checkpoints and ours on its. Writes data/results/lerobot_versions.json, which
docs/exchange.md shows. With --only WORDS, what has these words in its name is tried
again, and what the file holds of the rest is kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from act_minimal.checkpoint import read_json
from act_minimal.support.files import write_text
from tests.lerobot_environment import make_environment, run

from ..results import RESULTS, ROOT, write
from ..tables import table, with_block

PAGE = ROOT / "docs" / "exchange.md"
TESTS = {  # what is tried -> the tests that do it
    "checkpoints, there and back": (
        "exchange/test_lerobot_policy.py::test_lerobot_opens_what_we_write_and_we_what_it_writes"
    ),
    "actions, loss and gradient of its ACT": (
        "exchange/test_lerobot_parity.py::test_lerobot_itself_still_computes_the_golden_numbers"
    ),
    "datasets: it reads ours": (
        "exchange/test_lerobot_data.py::test_lerobot_reads_what_is_written_here"
    ),
    "datasets: it upgrades ours and records on": (
        "exchange/test_lerobot_data.py::test_lerobot_upgrades_our_v21_and_records_on"
    ),
    "datasets: we read its own": (
        "exchange/test_lerobot_data.py::test_datasets_that_lerobot_records_load_here"
    ),
    "SO-100 follower on the virtual arm": "hardware/test_lerobot_client.py",
    "OpenArm followers on the virtual arms": "hardware/test_openarm_lerobot.py",
}
PACKAGES = ("lerobot", "torch", "numpy", "av", "datasets", "python-can")
ASK = (
    "import json, platform; from importlib.metadata import version; "
    f"print(json.dumps({{x: version(x) for x in {PACKAGES}}} | "
    "{'python': platform.python_version()}))"
)


def try_release(release: str, only: str) -> dict[str, Any]:
    """What is installed for a release, and how each of `TESTS` went."""
    installed = json.loads(run(make_environment(release), "-c", ASK).splitlines()[-1])
    row: dict[str, Any] = {"installed": installed, "tests": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for what, test in TESTS.items():
            if only not in what:
                continue
            report = Path(temporary, "report.xml")
            subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", f"tests/{test}", "-n", "0", "-q"),
                    *("-p", "no:cacheprovider", f"--junitxml={report}"),
                ],
                cwd=ROOT,
                env=os.environ | {"LEROBOT": release},
                stdout=sys.stderr,
            )
            row["tests"][what] = said = outcome(report)
            print(f"{release}: {what}: {said}", flush=True)
    return row


def outcome(report: Path) -> dict[str, Any]:
    """How many tests ran, and the first line on each that failed, by its name."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {}
    for case in cases:
        for kind in ("failure", "error"):
            if (found := case.find(kind)) is not None:
                failed[case.get("name")] = (found.get("message") or "").split("\n")[0]
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - len(failed) - skipped
    return {"passed": passed, "failed": failed, "skipped": skipped}


def table_of(releases: dict[str, Any]) -> str:
    """The result as a table of Markdown: a column for each release."""
    rows = []
    for name in ("python", *PACKAGES[1:]):
        rows.append([name, *(row["installed"][name] for row in releases.values())])
    for what in TESTS:
        said = [row["tests"][what] for row in releases.values()]
        rows.append([what, *map(in_words, said)])
    return table(["", *(f"LeRobot {release}" for release in releases)], rows)


def page(releases: dict[str, Any]) -> str:
    """docs/exchange.md with the table of these releases."""
    text = PAGE.read_text(encoding="utf-8")
    return with_block(text, "lerobot_versions", table_of(releases))


def in_words(said: dict[str, Any]) -> str:
    """Passed, or by how many tests of how many not."""
    tests = said["passed"] + len(said["failed"]) + said["skipped"]
    if said["passed"] == tests:
        return f"passed ({tests})"
    return f"{said['passed']} of {tests} passed; not: {', '.join(said['failed'])}"


def main() -> None:
    """Try the releases named on the command line, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("releases", nargs="+")
    parser.add_argument("--only", default="")
    wish = parser.parse_args()
    start = time.perf_counter()
    rows = {release: try_release(release, wish.only) for release in wish.releases}
    if wish.only:
        before = read_json(RESULTS / "lerobot_versions.json")["releases"]
        for release, row in rows.items():
            row["tests"] = before[release]["tests"] | row["tests"]
        rows = before | rows
    content = {"seeds": [0], "repetitions": 1, "releases": rows}
    write("lerobot_versions", time.perf_counter() - start, content)
    write_text(PAGE, page(rows))


if __name__ == "__main__":
    main()
