"""Numbers in the documents are the numbers in the result files."""

from pathlib import Path

import pytest

from act_minimal.support.errors import UserError
from benchmarks import report, tables
from benchmarks.arms.guard_bodies import LEANING, USUAL
from benchmarks.claims.__main__ import find, main
from benchmarks.claims.registry import MEASURED
from benchmarks.late_tables import late_chunks
from benchmarks.lerobot import versions as lerobot_versions
from course.toolkit.results import NOT_YET

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]


def test_results_page_is_fresh():
    assert (ROOT / "docs" / "results.md").read_text() == report.results_page()


def test_readme_numbers_are_fresh():
    text = (ROOT / "README.md").read_text()
    assert text == report.readme(text)


def test_what_was_tried_with_lerobots_releases_is_fresh_and_passed():
    releases = report.load("lerobot_versions")["releases"]
    assert set(releases) >= {"0.4.4", "0.6.1"}
    assert lerobot_versions.page(releases) == lerobot_versions.PAGE.read_text("utf-8")
    for row in releases.values():
        assert set(row["tests"]) == set(lerobot_versions.TESTS)
        for said in row["tests"].values():
            assert said["passed"] >= 1
            assert not said["failed"]
            assert not said["skipped"]


def test_nothing_is_left_to_be_measured():
    pages = [ROOT / "README.md", ROOT / "docs" / "results.md"]
    pages += sorted((ROOT / "notebooks").rglob("[0-9][0-9]_*.ipynb"))
    assert len(pages) > 10
    for page in pages:
        text = page.read_text().lower()
        for words in (NOT_YET, "not measured yet", "being measured"):
            assert words.lower() not in text, f"{page.name}: {words}"


def test_a_changed_number_is_noticed():
    row = {"success": 0.91, "interval": [0.87, 0.94]}
    assert report.success(row) == "91 % [87, 94]"
    page = report.with_block("a <!-- x -->old<!-- /x --> b", "x", "new")
    assert page == "a <!-- x -->\nnew\n<!-- /x --> b"


def test_below_a_table_stands_what_is_not_said_once_for_the_page():
    usual = {"cpu": "Intel(R) Xeon(R) Processor", "cores": 2}
    row = {"command": f"{tables.RUN}benchmarks.x --n 3", "machine": usual}
    row |= {"versions": {"torch": "2.15.0", "mujoco": "4.0.0"}}
    assert tables.machine(row) == tables.USUAL
    assert report.said_of(row) == "\n\nFrom `benchmarks.x --n 3`.\n"
    other = row | {"machine": {"cpu": "Slow", "cores": 2}, "seeds": [0, 1]}
    said = "\n\nFrom `benchmarks.x --n 3` on 2 cores (Slow); seeds 0, 1.\n"
    assert report.said_of(other) == said
    page = report.results_page()
    assert page.count(f"ran on {tables.USUAL}.") == 1
    assert page.count("MuJoCo 4.0.0") == 1


GUARDED = {"guard_bodies": USUAL, "guard_bodies_so100_pair": ("so100_pair",)}


@pytest.mark.parametrize(("name", "arms"), GUARDED.items())
def test_no_random_wish_brought_an_arm_into_anything(name, arms):
    result = report.load(name)
    assert result["n"] == (100_000 if arms == USUAL else 25_000)
    for kind, one_in in (("arms", 1), ("leaning", LEANING)):
        assert set(result[kind]) == set(arms)
        for arm, row in result[kind].items():
            wishes = result["n"] // (2 if arm.startswith("openarm") else 1)
            assert row["n"] == wishes // one_in, (arm, kind)
            assert row["ticks"] >= row["n"]
            assert row["deeper_than_2_mm"] == 0
            assert row["deepest_mm"] <= 2
            assert row["over_15_N_for_0.3_s"] == 0
            assert row["longest_over_15_N_s"] <= 0.3


@pytest.mark.parametrize("name", GUARDED)
def test_the_limits_are_fast_enough_for_200_hz(name):
    result = report.load(name)
    took = {
        arm: row["allow_ms"]
        for kind in ("arms", "leaning")
        for arm, row in result[kind].items()
    }
    assert 0 < max(took.values()) < 5, took


def test_every_committed_measurement_has_its_command(capsys):
    main([])
    listed = capsys.readouterr().out
    for claim in MEASURED:
        assert find(claim.number.lower()) is claim
        assert f"\n{claim.number} " in listed
        others = {c.file for c in MEASURED if c is not claim}
        own = [n for n in claim.results if n.startswith("claims/") and n not in others]
        for name in own:
            result = report.load(name)
            if result is None:  # declared, and says so: see test_claims.py
                continue
            assert result["claim"] == claim.text
            assert result["published"] == claim.published
            words = result["command"].split()
            assert words[4:6] == ["benchmarks.claims", claim.number]
            with pytest.raises(SystemExit) as end:  # tyro's help ends the program
                main([claim.number, *words[6:], "--help"])
            assert end.value.code == 0
    with pytest.raises(UserError, match=r"C99.*there are: C1, C4"):
        find("C99")


def test_late_chunks_are_told_by_world_horizon_and_spread():
    def row(world, way, delay, horizon, success, spread=1.0, **late):
        interval = [success - 0.1, success + 0.1]
        labels = {"world": world, "way": way, "delay": delay, "horizon": horizon}
        rate = {"spread": spread, "success": success, "interval": interval, "n": 300}
        return labels | rate | late

    result = {
        "summary": [
            row("belt", "switch", 8, 25, 0.81, near=3.0, apart=2.0),
            row("belt", "switch", 8, 8, 0.82),
            row("belt", "ensemble", 8, 8, 0.83),
            row("catch", "switch", 8, 8, 0.84),
            row("catch", "switch", 8, 10, 0.85),
            row("catch", "switch", 8, 25, 0.86),
            row("belt", "switch", 8, 25, 0.87, spread=3.0),
            row("catch", "switch", 8, 25, 0.2, spread=3.0),
        ],
        "costs": {"chunk_size": 100, "ms_a_tick": {"switch": {"mean": 0.003}}},
    }
    *tables, costs = late_chunks(result).split("\n\n")
    arms, often, seldom, drawn = tables[1::2]  # each after its sentence
    assert "| belt | switch | 81 % [71, 91] | 1.50 |" in arms
    assert "| belt | ensemble | 83 %" in arms
    assert "82 %" not in arms
    assert "catch" not in arms
    assert "| catch | switch | 84 % [74, 94] |" in often
    assert "| catch | switch | 86 % [76, 96] |" in seldom
    assert "87 %" in drawn
    assert "catch" not in drawn
    assert costs.endswith("ms a tick, k = 100: switch 0.003.")
