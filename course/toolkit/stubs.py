"""What an exercise gives the learner, and whether an answer is still that."""

import ast
import dis
import functools
import re
from types import CodeType, FunctionType
from typing import Any

from act_minimal.support.errors import UserError

from .paths import ROOT

MARKS = ("# solution", "# stub", "# end")


def split_exercise(source: str, where: str = "") -> tuple[str, str, str]:
    """A code cell as the learner has it, as the teacher has it, and the solution alone.

    Raises:
        UserError: marks in another order than solution, stub, end.
    """
    learner, teacher, solution = [], [], []
    state = "# end"
    for line in source.splitlines():
        mark = line.strip()
        if mark in MARKS:
            if MARKS.index(mark) != (MARKS.index(state) + 1) % 3:
                raise UserError(f"{where}: {mark!r} after {state!r}")
            state = mark
        elif state == "# solution":
            teacher.append(line)
            solution.append(line)
        elif state == "# stub":
            learner.append(re.sub(r"^(\s*)# ?", r"\1", line))
        else:
            learner.append(line)
            teacher.append(line)
    if state != "# end":
        raise UserError(f"{where}: {state!r} is not ended")
    return "\n".join(learner), "\n".join(teacher), "\n".join(solution)


def is_untouched(answer: Any, lesson: str) -> bool:
    """Whether an answer is a stub of this lesson ("04"), or does nothing at all.

    The compiled code is compared, so comments, `pass` and blank lines do not count. A
    class is untouched if all of its methods are, and a function if the functions of the
    notebook that it calls are, too.
    """
    if answer is None or answer is ...:
        return True
    parts = vars(answer).values() if isinstance(answer, type) else [answer]
    own = [part for part in parts if isinstance(part, FunctionType)]
    own += [called for function in own for called in _called(function)]
    found = [_key(function.__code__) for function in own]
    return bool(found) and all(
        key in _stubs(lesson) or _does_nothing(key) for key in found
    )


def _called(function: FunctionType) -> list[FunctionType]:
    """The functions of the same notebook that a function names."""
    space = function.__globals__
    named = [space.get(name) for name in function.__code__.co_names]
    return [x for x in named if isinstance(x, FunctionType) and x.__globals__ is space]


def _key(code: CodeType) -> tuple:
    """What a function does, without its line numbers and docstring."""
    return tuple(
        (step.opname, _key(x) if isinstance(x := step.argval, CodeType) else x)
        for step in dis.get_instructions(code)
    )


def _does_nothing(key: tuple) -> bool:
    """Whether a function only returns None, `...`, or a tuple of them."""
    moves = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}
    for name, value in key:
        parts = value if isinstance(value, tuple) else (value,)
        if name not in moves or (
            "CONST" in name and any(x is not None and x is not ... for x in parts)
        ):
            return False
    return True


@functools.cache
def _stubs(lesson: str) -> frozenset[tuple]:
    """Every function of the stubs in a lesson's source."""
    keys = set()
    for path in (ROOT / "notebooks").rglob(f"src/{lesson}_*.py"):
        for cell in re.split(r"^# %%.*$", path.read_text("utf-8"), flags=re.MULTILINE):
            if "# stub" in cell:
                module = ast.parse(split_exercise(cell, path.name)[0])
                keys |= _functions(compile(module, path.name, "exec"))
    return frozenset(keys)


def _functions(code: CodeType) -> set[tuple]:
    inner = [x for x in code.co_consts if isinstance(x, CodeType)]
    return {_key(x) for x in inner}.union(*map(_functions, inner))
