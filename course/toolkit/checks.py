"""Exercises: what was asked, hints one by one, and a check that names the mistake."""

import html
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from act_minimal.support.errors import SettingError

from .stubs import is_untouched

State = Literal["not attempted", "right", "wrong"]
SIGNS = {"not attempted": "○", "right": "✓", "wrong": "✗"}
EDGES = {"not attempted": "#999999", "right": "#0072B2", "wrong": "#D55E00"}
ASYNC = "your function is an `async def`: a plain `def` is wanted"


class Wrong(Exception):
    """The answer is wrong, and this is how."""


class NotAttempted(Exception):
    """The stub is as it was."""


@dataclass(frozen=True)
class Verdict:
    """What a check says."""

    exercise: str
    state: State
    message: str

    def __repr__(self) -> str:
        return f"{SIGNS[self.state]} {self.exercise}: {self.state}. {self.message}"

    def _repr_html_(self) -> str:
        return (
            f'<div style="border-left:4px solid {EDGES[self.state]};padding:.3em 1em">'
            f"{SIGNS[self.state]} <b>{self.state}</b>. {html.escape(self.message)}"
            "</div>"
        )


@dataclass
class Exercise:
    """One exercise: its hints, and the examiner that raises `Wrong`."""

    name: str
    minutes: int
    hints: tuple[str, ...]
    praise: str
    examine: Callable[..., None]
    given: int = 0
    """Hints that were asked for."""


EXERCISES: dict[str, Exercise] = {}


def exercise(
    name: str, *, minutes: int, hints: tuple[str, ...], praise: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register an examiner: it takes the learner's answers, and raises `Wrong`.

    A name is lesson and exercise, "04.ensemble"; hints go from a nudge to nearly the
    answer; praise says what a right answer has shown.
    """

    def register(examine: Callable[..., None]) -> Callable[..., None]:
        EXERCISES[name] = Exercise(name, minutes, hints, praise, examine)
        return examine

    return register


def attempt(function: Callable[..., Any], *args: Any, in_place: bool = False) -> Any:
    """Call the learner's function; what it raises is an answer, not a crash.

    What it is handed has to stay as it is, unless the task is to change it `in_place`.

    Raises:
        Wrong: it raised, and what; or it returns nothing; or it changed an argument.
    """
    if not callable(function):
        raise Wrong(f"a function is wanted, this is {type(function).__name__}")
    before = args if in_place else [_copied(x) for x in args]
    try:
        answer = function(*args)
    except (Exception, SystemExit) as error:
        raise Wrong(f"your function raised {type(error).__name__}: {error}") from None
    if inspect.iscoroutine(answer):
        answer.close()  # nobody waits for it
        raise Wrong(ASYNC)
    if answer is ...:
        raise Wrong("your function still returns '...': put your answer there")
    if answer is None:
        raise Wrong(_nothing_returned(function))
    for i, (now, then) in enumerate(zip(args, before, strict=True)):
        if not (in_place or _unchanged(now, then)):
            raise Wrong(
                f"your function changed its argument {_name_of_argument(function, i)}: "
                "the caller still needs it; work on a copy"
            )
    return answer


def _copied(value: Any) -> Any:
    """A copy of numbers and of what holds them; other objects stay what they are."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple):
        return [_copied(x) for x in value]
    held = _held(value)
    return value if held is None else {key: _copied(x) for key, x in held.items()}


def _held(value: Any) -> dict | None:
    """The dictionary that this is, or that is the weights of a network."""
    held = getattr(value, "state", value)
    return held if isinstance(held, dict) else None


def _unchanged(now: Any, then: Any) -> bool:
    """Whether a value is as its `_copied` was; nan is equal to nan."""
    if isinstance(then, Tensor | np.ndarray):
        if not isinstance(now, Tensor | np.ndarray):
            return False
        a = np.asarray(now.detach() if isinstance(now, Tensor) else now)
        nan = a.dtype.kind in "fc"
        return bool(np.array_equal(a, np.asarray(then), equal_nan=nan))
    if isinstance(then, list):
        as_long = isinstance(now, list | tuple) and len(now) == len(then)
        return as_long and all(map(_unchanged, now, then))
    if (held := _held(now)) is None:
        return now is then
    return held.keys() == then.keys() and all(
        _unchanged(held[k], then[k]) for k in then
    )


def _name_of_argument(function: Callable, i: int) -> str:
    try:
        parameter = list(inspect.signature(function).parameters.values())[i]
    except (IndexError, TypeError, ValueError):
        return f"number {i + 1}"
    named = parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    return f"`{parameter.name}`" if named else f"number {i + 1}"


def _nothing_returned(function: Any) -> str:
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    if "print" in names:
        return (
            "your function prints, but returns nothing (None): write `return` where it "
            "prints its answer"
        )
    return (
        "your function returns nothing (None): a function needs a line "
        "`return ...` that hands its answer over"
    )


# --- what examiners share -------------------------------------------------------------


def numbers(answer: Any) -> np.ndarray:
    """An answer as float64, whatever kind of array it is; `Wrong` if it is none."""
    if isinstance(answer, Tensor):
        answer = answer.detach()
    try:
        if np.asarray(answer).dtype.kind in ("S", "U"):
            raise TypeError  # NumPy reads "7" as 7.0
        return np.asarray(answer, float)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"numbers are wanted, this is {_described(answer)}") from None


def number(answer: Any, wanted: str = "one number") -> float:
    """An answer as one number; `Wrong` says what is wanted otherwise."""
    if isinstance(answer, Tensor):
        answer = answer.detach()
    try:
        if np.asarray(answer).dtype.kind in ("S", "U"):
            raise TypeError  # float("7") is 7.0
        return float(answer)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{wanted} is wanted, this is {_described(answer)}") from None


def _described(answer: Any) -> str:
    return f"{type(answer).__name__}: {answer!r:.40}"


def two_parts(answer: Any, wanted: str, missing: str = "") -> Sequence[Any]:
    """An answer of two parts; `wanted` says what the two are.

    Where one of them is None or '...', `missing` is said.
    """
    pair = isinstance(answer, tuple | list) and len(answer) == 2
    if pair and any(part is None or part is ... for part in answer):
        raise Wrong(missing or "one of the two is still missing (None)")
    if not pair:
        raise Wrong(f"two {wanted}")
    return answer


def same(found: Any, value: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Whether an answer has this value: numbers of one shape, bytes, or a tuple."""
    if isinstance(value, bytes):
        return found == value
    if isinstance(value, tuple):
        return all(same(*pair, rtol, atol) for pair in zip(found, value, strict=True))
    a, b = np.asarray(found, float), np.asarray(value, float)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=rtol, atol=atol))


def told_apart(right: float, found: float, digits: int = 3) -> tuple[str, str]:
    """Two numbers that differ, with so many digits that the difference is seen."""
    for n in (*range(digits, 12), digits):
        said = f"{right:.{n}f}", f"{found:.{n}f}"
        if said[0] != said[1]:
            break
    return said


def name_the_mistake(found: Any, mistakes: Mapping[str, Any], **tolerance: float):
    """Raise `Wrong` with the words of the first mistake that gives this answer.

    Words go with the value that one gets by this mistake, or a list of values; the
    tolerance is that of `np.allclose`.
    """
    for words, values in mistakes.items():
        for value in values if isinstance(values, list) else [values]:
            if same(found, value, **tolerance):
                raise Wrong(words)


def is_right(
    found: Any, right: Any, mistakes: Mapping[str, Any], **tolerance: float
) -> bool:
    """Whether an answer is right; where it is not, a known mistake is named.

    Raises:
        Wrong: see `name_the_mistake`.
    """
    if same(found, right, **tolerance):
        return True
    name_the_mistake(found, mistakes, **tolerance)
    return False


def each_case(
    cases: Mapping[str, Any], examine: Callable[[Any], None], advice: str
) -> None:
    """Examine an answer with several inputs, given by their names.

    What is wrong with the first is said as it is. An answer that is right there and
    wrong with a later one has a number of its own for something that it was given.

    Raises:
        Wrong: see above; `advice` says what to take from the arguments.
    """
    first = next(iter(cases))
    for name, case in cases.items():
        try:
            examine(case)
        except Wrong as mistake:
            if name == first:
                raise
            raise Wrong(
                f"right for {first}, wrong for {name}: {advice} ({mistake})"
            ) from None


# --- what lessons call ----------------------------------------------------------------


def check(name: str, *answers: Any) -> Verdict:
    """Look at an answer, functions or values: not attempted, right, or wrong and how.

    It is not attempted while all that is handed in are the lesson's stubs, or do
    nothing.

    Raises:
        SettingError: no such exercise.
    """
    one = find_exercise(name)
    try:
        _check_count(one, answers)
        if all(is_untouched(answer, name.partition(".")[0]) for answer in answers):
            raise NotAttempted
        one.examine(*answers)
    except NotAttempted:
        return Verdict(
            name,
            "not attempted",
            f"About {one.minutes} minutes. hint('{name}') helps; the lesson goes on "
            "without it, too.",
        )
    except Wrong as mistake:
        return Verdict(name, "wrong", str(mistake))
    except (Exception, SystemExit) as error:
        # An answer of a kind that the examiner did not expect.
        said = f"{type(error).__name__}: {error}"
        return Verdict(
            name,
            "wrong",
            "your answer is not of the kind that is wanted, so it cannot be compared "
            f"({said:.200}). The docstring says what to return.",
        )
    return Verdict(name, "right", one.praise)


def _check_count(one: Exercise, answers: Sequence[Any]) -> None:
    """`Wrong` if more or fewer answers were handed in than the exercise has."""
    names = inspect.signature(one.examine).parameters
    try:
        inspect.signature(one.examine).bind(*answers)
    except TypeError:
        wanted = f"{len(names)} answer{'s' if len(names) > 1 else ''}"
        raise Wrong(
            f"check('{one.name}', ...) takes {wanted} after the name, this is "
            f"{len(answers)}"
        ) from None


@dataclass(frozen=True)
class Hint:
    """One hint."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<i>{html.escape(self.text)}</i>"


def hint(name: str) -> Hint:
    """The next hint of an exercise; after the last one they begin again."""
    one = find_exercise(name)
    i = one.given % len(one.hints)
    one.given += 1
    return Hint(f"Hint {i + 1} of {len(one.hints)}: {one.hints[i]}")


def find_exercise(name: str) -> Exercise:
    """The exercise of this name; `SettingError` lists the known."""
    if name not in EXERCISES:
        raise SettingError(
            f"no exercise '{name}'; the exercises are: {', '.join(sorted(EXERCISES))}"
        )
    return EXERCISES[name]
