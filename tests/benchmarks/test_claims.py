"""The claims: their board and sections, and small runs of what measures them."""

import contextlib
import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from act_minimal.episodes import list_episodes, load_episode
from act_minimal.sim.demonstrators import make_expert
from act_minimal.sim.world import start
from benchmarks import results, rollouts, tables
from benchmarks.claims import changes, latent, normalisation, page, teleoperation
from benchmarks.claims.__main__ import main
from benchmarks.claims.changes import Scenes
from benchmarks.claims.claim import Training, Verdict
from benchmarks.claims.registry import CLAIMS
from benchmarks.claims.teleoperation import Sampled, Teleoperation
from course.figures.lesson_02 import faster_task
from course.toolkit import results as filled

pytestmark = pytest.mark.mostly_quick

PAGE = results.ROOT / "docs" / "results.md"
LINE = 115  # characters: a row of the board is one line of a screen


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Results go to a folder of their own, and pages read them there."""
    for module in (results, tables, filled):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    here = contextlib.nullcontext(SimpleNamespace(map=map))  # no pool of processes
    monkeypatch.setattr(rollouts, "ProcessPoolExecutor", lambda *args, **kwargs: here)
    folder = tmp_path / "results" / "claims"
    return lambda name: json.loads((folder / f"{name}.json").read_text("utf-8"))


@pytest.fixture
def few(monkeypatch):
    """Three demonstrations wherever 50 are wanted."""
    real = rollouts.record_once

    def record_once(folder, demonstrator, n, *how):
        return real(folder, demonstrator, 3, *how)

    for module in (rollouts, normalisation):
        monkeypatch.setattr(module, "record_once", record_once)


def said(claim):
    """What the page says of an extension, from the results in place."""
    text = page.extension(claim)
    assert "{{" not in text
    return text


# --- the board ------------------------------------------------------------------------


def test_every_claim_stands_on_the_board_with_a_link_to_its_section():
    assert [claim.number for claim in CLAIMS] == [f"C{i}" for i in range(1, 43)]
    text = PAGE.read_text("utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {page.anchor(title) for title in titles}
    rows = re.findall(
        r"^\| \[(C\d+)\]\((#[^)]+)\) \| ([^|]+) \| ([^|]+) \|$", text, re.M
    )
    assert [number for number, *_ in rows] == [claim.number for claim in CLAIMS]
    for (number, link, verdict, line), claim in zip(rows, CLAIMS, strict=True):
        assert link in anchors, number
        assert link.startswith(f"#{number.lower()}-")
        assert verdict == claim.verdict
        assert 20 < len(line) <= LINE, f"{number}: {len(line)} characters"


def test_links_are_made_as_code_hosts_make_them():
    assert page.anchor("C4. exp(-m i), i = 0: why?") == "#c4-exp-m-i-i--0-why"


def test_the_board_comes_first_and_fits_one_screen():
    text = PAGE.read_text("utf-8")
    before = text[: text.index("| [C1]")].splitlines()
    assert len(before) <= 8


def test_a_verdict_needs_a_committed_result():
    for claim in CLAIMS:
        assert claim.verdict in get_args(Verdict), claim.number
        assert claim.published, claim.number
        # The board has the verdict beside the line.
        assert claim.verdict not in claim.line.lower(), claim.number
        if not page.measured(claim):
            assert claim.verdict == "not tested", f"{claim.number} has no result"
        else:
            assert claim.verdict != "not tested", f"{claim.number} has a result"
            assert claim.ours, f"{claim.number} has a verdict without a measurement"


def test_a_claim_without_a_result_says_how_to_get_it(written):
    text = page.section(replace(teleoperation.C26, verdict="not tested"))
    assert "**Not tested.**" in text
    assert "To be made by `uv run python -m benchmarks.claims C26 --jobs 2`." in text
    assert "Measured here" not in text


def test_commands_to_come_can_be_typed():
    for claim in CLAIMS:
        if claim.extension or (claim.measure and not page.measured(claim)):
            words = claim.command.split()
            with pytest.raises(SystemExit) as end:
                main([*words[words.index(claim.number) :], "--help"])
            assert end.value.code == 0


def test_rates_are_short_and_say_an_unusual_n(written):
    row = {"success": 0.91, "interval": [0.87, 0.94]}
    rows = [row | {"n": 300, "k": 1}, row | {"n": 60, "k": 2}]
    results.RESULTS.mkdir()
    (results.RESULTS / "one.json").write_text(json.dumps({"summary": rows}))
    text = page.short("so {{one summary k=1}} and {{one summary k=2}}")
    assert text == "so 91 % [87, 94] and 91 % [87, 94; n = 60]"


# --- small runs -----------------------------------------------------------------------


def tiny(tmp_path, **more):
    return Training(tmp_path / "runs", seeds=(0,), n=1, steps=2, **more)


@pytest.mark.slow
def test_kl_weights_go_up_to_1000(tmp_path, monkeypatch, written, few):
    assert {20.0, 100.0, 1000.0} < set(latent.SUMMED)
    names = [job.name for job in latent.jobs(tiny(tmp_path))]
    assert len(names) == len(set(names)) == len(latent.SUMMED) + 3
    monkeypatch.setattr(latent, "WEIGHTS", (("sum", (20.0, 100.0, 1000.0)),))
    latent.C6.run(tiny(tmp_path))
    rows = written("C06")["summary"]
    assert [r["kl_weight"] for r in rows] == ["none", 20.0, 100.0, 1000.0]
    assert all(np.isfinite(r["kl"]) for r in rows[1:])
    assert "1000: 0 % [0, 79; n = 1]" in said(latent.C6)


@pytest.mark.slow
def test_normalisation_has_three_ways_and_goes_on(tmp_path, monkeypatch, written, few):
    normalisation.C20.run(tiny(tmp_path))
    assert [r["statistics"] for r in written("C20")["summary"]] == [
        *("standard", "none", "range")
    ]
    assert "Scaled to [-1, 1]" in said(normalisation.C20)
    # A file from before the third way was added gets that one, and nothing else again.
    path = tmp_path / "runs" / "c20_0.json"
    kept = json.loads(path.read_text())
    kept["rows"] = kept["rows"][:2]
    path.write_text(json.dumps(kept))
    calls, real = [], normalisation.lesson_06.train_short

    def train_short(demos, statistics, **how):
        calls.append(statistics)
        return real(demos, statistics, **how)

    monkeypatch.setattr(normalisation.lesson_06, "train_short", train_short)
    normalisation.C20.run(tiny(tmp_path))
    assert len(calls) == 1
    found = json.loads(path.read_text())
    assert found["rows"][:2] == kept["rows"]
    assert found["still"] == kept["still"]


class OneEpisode(SimpleNamespace):
    """Demonstrations, made up."""

    def __len__(self):
        return 1


def test_the_range_becomes_minus_one_to_one():
    names = ("qpos", "action", "env_state")
    arrays = {k: np.random.default_rng(0).normal(3, 2, (50, 4)) for k in names}
    arrays["qpos"][:, 2] = 0.5  # never moves
    demos: Any = OneEpisode(
        **{k: x.astype(np.float32) for k, x in arrays.items()},
        folder="made up",
        starts=np.array([0]),
        lengths=np.array([50]),
    )
    found = normalisation.ways(demos)["range"]
    for key, x in arrays.items():
        scaled = (x - found.mean[key]) / found.std[key]
        moving = x.std(0) > 0
        np.testing.assert_allclose(scaled[:, moving].max(0), 1, atol=1e-5)
        np.testing.assert_allclose(scaled[:, moving].min(0), -1, atol=1e-5)
        assert np.abs(scaled[:, ~moving]).max(initial=0) < 1e-5


def test_the_cubes_are_shown_to_a_retrained_policy_too(tmp_path, monkeypatch, written):
    trained = []
    row = {"successes": 1, "n": 1, "rate": 1.0, "interval": [0.2, 1.0], "kinds": {}}
    row |= {"jerk": 0.0, "frozen": 0.0, "seconds": 0.0}

    def run_trial(policy, change, labels, seed, n, out):
        return labels | row | {"seed": seed}

    monkeypatch.setattr(changes, "run_job", lambda job, runs: trained.append(job))
    monkeypatch.setattr(changes, "run_trial", run_trial)
    monkeypatch.setattr(
        *(changes, "expert_row"),
        lambda name, *_: row | {"policy": "expert", "change": name, "seed": 0},
    )
    assert changes.C27.settings.retrain
    changes.C27.run(Scenes(tmp_path / "runs", seeds=(0,), n=1))
    assert trained == []
    assert "not run yet" in said(changes.C27)
    changes.C27.run(Scenes(tmp_path / "runs", seeds=(0,), n=1, retrain=True))
    [job] = trained
    assert job.settings["brightness"] == job.settings["saturation"] == 0.5
    assert (job.demonstrations, job.settings["steps"]) == (200, 7500)
    assert "green 100 %" in said(changes.C27)


# --- C26: the hand --------------------------------------------------------------------


def test_a_leader_is_sampled_and_held():
    plan = np.arange(10.0)[:, None]
    assert teleoperation.held(plan, 1)[:, 0].tolist() == list(range(10))
    assert teleoperation.held(plan, 4)[:, 0].tolist() == [*[0] * 4, *[4] * 4, 8, 8]


@pytest.mark.parametrize("pace", [0.5, 1.0, 2.0])
def test_a_slower_hand_goes_the_same_way(pace):
    plan = np.stack([np.linspace(0, 1, 21), np.linspace(3, 1, 21)], 1)
    slow = teleoperation.stretched(plan, pace)
    assert len(slow) - 1 == 20 / pace
    np.testing.assert_allclose(slow[[0, -1]], plan[[0, -1]])
    steps = np.diff(slow, axis=0) / (np.diff(plan, axis=0)[:1] * pace)
    np.testing.assert_allclose(steps, 1)


def test_at_50_hz_and_its_own_pace_the_hand_is_the_demonstrator():
    task, usual = Sampled(50), faster_task(50)
    assert (task.fps, task.substeps, task.max_ticks) == (50, usual.substeps, 833)
    scene = 1_000_000_000
    plan = make_expert(usual, "human").plan(start(usual, scene), scene)
    ours = make_expert(task, "human").plan(start(task, scene), scene)
    np.testing.assert_allclose(ours, plan)
    five = make_expert(Sampled(5), "human").plan(start(task, scene), scene)
    np.testing.assert_allclose(five, teleoperation.held(plan, 10))


RATE = {"success": 0.9, "interval": [0.8, 0.95], "n": 60}


def summary(**rates):
    """Rows of demonstrations: success by "<hz>hz_<pace in tenths>"."""
    rows = []
    for name, success in rates.items():
        hz, pace = name.removeprefix("r").split("_")
        row = {"hz": int(hz), "pace": int(pace) / 10, "success": success}
        rows.append(row | {"seconds_to_success": 6 / row["pace"]})
    return rows


def test_needed_is_the_fastest_pace_that_is_as_good():
    rows = summary(r5_10=0.97, r5_14=0.5, r50_10=1.0, r50_14=0.96, r50_20=0.9)
    five, fifty = teleoperation.needed(rows)
    assert (five["pace"], fifty["pace"]) == (1.0, 1.4)
    assert five["longer"] == pytest.approx(0.4)
    assert fifty["longer"] == 0
    slower, _ = teleoperation.needed(summary(r5_5=0.97, r5_10=0.5, r50_10=1.0))
    assert slower["longer"] == pytest.approx(1.0)
    never, _ = teleoperation.needed(summary(r5_10=0.5, r50_10=1.0))
    assert never["pace"] is None


def test_the_page_finds_the_numbers_of_the_hand(written):
    (results.RESULTS / "claims").mkdir(parents=True)
    names = [f"r{hz}_{pace}" for hz in teleoperation.RATES for pace in (10, 14)]
    rows = [r | RATE for r in summary(**dict.fromkeys(names, 0.9))]
    policies = [RATE | {"hz": hz} for hz in teleoperation.RATES]
    found = {"summary": rows, "policies": policies, "command": "made"}
    found |= {"machine": {"cpu": "x", "cores": 2}}
    found |= {"versions": {"torch": "2", "mujoco": "4"}}
    found["needed"] = teleoperation.needed(rows)
    (results.RESULTS / "claims" / "C26.json").write_text(json.dumps(found))
    text = page.section(teleoperation.C26)
    assert "{{" not in text
    assert "at the hand's own: 0 %. Policies" in text
    # No pace that was tried is slow enough for 5 Hz.
    rows = [r if r["hz"] > 5 else r | {"success": 0.1} for r in rows]
    for row in rows:
        if row["hz"] == 5:
            row["seconds_to_success"] = None
    found |= {"summary": rows, "needed": teleoperation.needed(rows)}
    (results.RESULTS / "claims" / "C26.json").write_text(json.dumps(found))
    text = page.section(teleoperation.C26)
    assert "at the hand's own: none was found. Policies" in text
    assert "mean seconds to success at 5 Hz: none was found, at 50 Hz: 6.0." in text


@pytest.mark.slow
def test_every_rate_is_shown_and_learnt(tmp_path, monkeypatch, written):
    monkeypatch.setattr(teleoperation, "RATES", (5, 50))
    monkeypatch.setattr(teleoperation, "PACES", (1.0, 2.0))
    monkeypatch.setattr(teleoperation, "DEMONSTRATIONS", 2)
    settings = Teleoperation(tmp_path / "runs", seeds=(0,), n=2, steps=2)
    teleoperation.C26.run(settings)
    found = written("C26")
    rates = {(r["hz"], r["pace"]): r for r in found["summary"]}
    assert rates[50, 1.0]["success"] == 1.0
    assert 3 < rates[50, 1.0]["seconds_to_success"] < 10
    assert [r["hz"] for r in found["policies"]] == [5, 50]
    held = load_episode(list_episodes(tmp_path / "runs/c26/human_5hz_2_0")[0])
    assert held.fps == 50
    np.testing.assert_array_equal(held.action[:10], held.action[:1].repeat(10, 0))
    assert not np.array_equal(held.action[20], held.action[30])
    # What was done is found again: nothing is simulated or trained a second time.
    for name in ("World", "train"):
        monkeypatch.setattr(teleoperation, name, None)
    teleoperation.C26.run(settings)
    assert written("C26")["summary"] == found["summary"]
