"""What a command prints, once, and the exit code that it leaves with."""

import json

import pytest

from act_minimal.support.results import Result

pytestmark = pytest.mark.quick


def test_text_for_a_person_and_json_for_a_machine(capsys):
    result = Result({"name": "Würfel", "n": 1}, "one cube\nis here", code=1)
    assert result.show(json=False) == 1
    assert capsys.readouterr().out == "one cube\nis here\n"
    assert result.show(json=True) == 1
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == result.content


def test_nothing_to_say_is_no_empty_line(capsys):
    assert Result({"n": 1}).show(json=False) == 0
    assert capsys.readouterr().out == ""


def test_what_comes_then_comes_after_the_printing(capsys):
    def fail():
        assert capsys.readouterr().out == "numbers\n"
        raise ValueError("no film")

    with pytest.raises(ValueError, match="no film"):
        Result({}, "numbers", then=fail).show(json=False)
