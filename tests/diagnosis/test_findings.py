"""What a diagnosis says of its outcomes."""

import json

import pytest

from act_minimal.diagnosis.findings import (
    CAUSES,
    Diagnosis,
    Finding,
    Level,
    Passed,
    Skipped,
)
from act_minimal.diagnosis.report import as_text

pytestmark = pytest.mark.quick


def finding(cause: str, level: Level, ratio: float = 2.0) -> Finding:
    return Finding(cause, level, ratio, "was 3", "at most 1", "likely", "do this")


def test_the_most_serious_finding_comes_first_and_each_cause_once():
    found = Diagnosis("p", "d")
    found.outcomes += [
        finding("jerk", "note", 90),
        finding("light", "suspect", 3),
        finding("units", "wrong", 2),
        finding("light", "wrong", 9),
        finding("rate", "suspect", 4),
    ]
    names = [(x.cause, x.level) for x in found.findings]
    assert names == [
        ("light", "wrong"),
        ("units", "wrong"),
        ("rate", "suspect"),
        ("jerk", "note"),
    ]
    assert found.verdict == f"most likely: {CAUSES['light']}; or {CAUSES['units']}"


def test_a_suspicion_alone_is_called_one():
    found = Diagnosis("p", "d", [finding("rate", "suspect"), finding("jerk", "note")])
    assert found.verdict == f"perhaps: {CAUSES['rate']}"


def test_what_one_check_passed_and_another_found_is_not_excluded():
    found = Diagnosis("p", "d", [Passed("units", "fits"), finding("units", "wrong")])
    found.outcomes += [Passed("light", "as bright"), Skipped("light", "no images")]
    found.outcomes += [Skipped("rate", "no trial")]
    assert [x.cause for x in found.excluded] == ["light"]
    assert [x.cause for x in found.skipped] == ["rate"]


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([0.1, 0.5], "was found. Looked for, and not found, were: units"),
        ([0.8, 0.97], "nothing was found; it succeeds in 1 of 4"),
        (None, "no trial was judged"),
    ],
)
def test_without_a_finding_it_says_what_was_excluded(interval, said):
    found = Diagnosis("p", "d", [Passed("units", "fits")])
    if interval:
        found.rates["new scenes"] = {"successes": 1, "n": 4, "interval": interval}
    assert said in found.verdict


def test_text_and_json_hold_all_of_a_finding():
    found = Diagnosis("runs/p", "demos", [finding("units", "wrong")])
    found.outcomes += [Passed("light", "as bright"), Skipped("rate", "no trial")]
    text = as_text(found)
    for words in ("was 3", "at most 1", "do this", "likely", CAUSES["units"]):
        assert words in text
    assert "not found: light" in text
    assert "Not looked for, as no trial: rate" in text
    content = json.loads(json.dumps(found.to_json()))
    assert content["findings"][0]["step"] == "do this"
    assert [x["cause"] for x in content["not_looked_for"]] == ["rate"]
