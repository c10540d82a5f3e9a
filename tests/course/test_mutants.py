"""No solution with one thing changed passes its check, and no answer crashes one.

The answers come from the lessons' sources; see `mutants.py`.
"""

import inspect
import math
import re
import warnings

import numpy as np
import pytest
import torch

from course.toolkit.checks import EXERCISES, check

from .mutants import (
    agree,
    forgetful,
    limited_time,
    mutants,
    nearby,
    outcome,
    recorded,
    sizes_and_numbers,
    solved_exercises,
)

SOLVED = solved_exercises()
INPUTS, VARIANTS = 6, 8  # of an exercise: those of its check, and others near each
MOST = 80  # mutants of an exercise, evenly spaced

each_exercise = pytest.mark.parametrize("name", sorted(SOLVED))

# Lines that pass a check and behave differently, each with the reason why that is
# right. A change that makes no difference to any input that is tried needs no entry.
EQUIVALENT: dict[str, dict[str, str]] = {
    "F3.lag": {
        "apart = [np.square(qpos[d:] - action[:n - d]).mean() "
        "for d in range(most + 1)]": "the distance may be any"
    }
}


@pytest.fixture(autouse=True)
def _as_in_a_notebook():
    """Where a warning is text under the cell, and not an exception."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def test_every_exercise_is_found():
    assert set(SOLVED) == set(EXERCISES)


@each_exercise
def test_the_stub_is_not_attempted_and_the_solution_is_right(name):
    one = SOLVED[name]
    # Of this one the cells above are part, and are mended here.
    begun = "wrong" if name == "07.deploy" else "not attempted"
    assert check(name, *one.run(one.learner)).state == begun
    verdict = check(name, *one.run(one.teacher))
    assert verdict.state == "right", verdict


@each_exercise
@pytest.mark.parametrize("prints", [False, True], ids=["forgotten", "printed"])
def test_a_forgotten_return_is_named(name, prints, capsys):
    one = SOLVED[name]
    answers = one.run(forgetful(one.teacher, prints))
    if any(isinstance(answer, type) for answer in answers):
        pytest.skip("a class is asked for")
    verdict = check(name, *answers)
    assert verdict.state == "wrong", verdict
    assert "returns nothing (None)" in verdict.message
    assert ("your function prints" in verdict.message) == prints


# What may be the same whenever a check asks: a pattern of where it stands, and why.
FIXED = {
    "01.dagger": r".*pairs\[.*",  # handed on, and never looked into
    "05.attend": r"mask\.shape\[[12]\]",  # 1, for all heads and queries
    # The feature map of the small backbone, and pixels, have three channels and more.
    "05.act": r"(w\['cameras\.|batch\['features'\]).*",
    "05.decode": r"w\['position'\]\.shape\[0\]",
    "08.limit": r"\w+\.shape\[0\]",  # the arm's 6 joints
    # Five numbers with three for each; stiffness and damping begin at 0.
    "09.frame": r"len\(.*\)|ranges\[[23]\]\[0\]",
    "09.side_by_side": r"seen\[.*\]\.shape\[1\]",  # two arms, and a bar's pose
}


@each_exercise
def test_a_check_tries_each_number_and_size_with_two_values(name):
    one = SOLVED[name]
    right = one.run(one.teacher)
    calls = [[] for _ in right]
    watched = [recorded(*pair) for pair in zip(right, calls, strict=True)]
    assert check(name, *watched).state == "right"
    for answer, asked in zip(right, calls, strict=True):
        names = list(inspect.signature(answer).parameters)
        tried: dict[str, set] = {}
        for values in asked:
            for argument, value in zip(names, values, strict=False):
                for where, x in sizes_and_numbers(value, argument):
                    tried.setdefault(where, set()).add(x)
        for where, different in tried.items():
            fixed = re.fullmatch(FIXED.get(name, ""), where)
            assert len(different) > 1 or fixed, f"{where} is always {different}"


ODD = [
    *("", "7", "nan", b"", b"7", 7, -1.5, True, 1j, math.nan, math.inf, 10**400),
    *((), [], {}, {"a": 1}, {1}, [[1], [1, 2]], (None, None), (..., 1), ("a", "b")),
    *(range(3), object(), object, iter([]), len, Exception("?"), [None], [[]]),
    *(np.zeros(0), np.zeros((2, 0)), np.array("7"), np.full(6, np.nan), np.ones(6)),
    *(torch.zeros(0), torch.tensor(math.nan), torch.ones(6, requires_grad=True)),
    *((np.zeros(3), "x"), [torch.ones(2), 1], (1, 2, 3), np.array([None, {}])),
]


@each_exercise
def test_no_odd_answer_crashes_a_check_or_passes_it(name):
    n = len(SOLVED[name].answers)
    for odd in ODD:
        for answer in (odd, lambda *a, odd=odd, **k: odd):
            verdict = check(name, *[answer] * n)
            assert verdict.state == "wrong", (odd, verdict)
            assert verdict._repr_html_()


@each_exercise
def test_what_an_answer_raises_is_said(name):
    def fails(*values):
        raise LookupError("not this time")

    verdict = check(name, *[fails] * len(SOLVED[name].answers))
    assert "raised LookupError: not this time" in verdict.message


@each_exercise
def test_no_mutant_passes(name):
    one = SOLVED[name]
    right = one.run(one.teacher)
    calls = [[] for _ in right]
    watched = [
        recorded(answer, asked) if callable(answer) else answer
        for answer, asked in zip(right, calls, strict=True)
    ]
    assert check(name, *watched).state == "right"
    rng = np.random.default_rng(0)
    questions = [
        (i, values, near)
        for i, asked in enumerate(calls)
        for real in asked[:: max(1, len(asked) // INPUTS)]
        for near in range(1 + VARIANTS)
        for values in [nearby(real, rng) if near else real]
    ]
    wanted = [outcome(right[i], values) for i, values, _ in questions]
    found = list(mutants(one.teacher))
    passing, different = set(), 0
    for line, code in found[:: -(-len(found) // MOST)]:
        with limited_time():
            answers = one.run(code)
            state = check(name, *answers).state
            assert state != "not attempted", line
            if state != "right":
                different += 1
                continue
            for (i, values, near), expected in zip(questions, wanted, strict=True):
                same = agree(expected, outcome(answers[i], values))
                if not same and not (near and expected is None):
                    passing.add(line)
                    break
    assert passing == set(EQUIVALENT.get(name, {}))
    assert different >= 8
