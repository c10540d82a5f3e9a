"""Settings and their one check: of types, and of bounds that stand beside the field.

    @dataclass(frozen=True)
    class Config:
        steps: Count = 100
        dropout: Annotated[float, Bounds(0, below=1)] = 0.0

        def __post_init__(self) -> None:
            check_settings(self)

Only what concerns one setting alone is said so; what concerns two of them at once is
said in the class. Nothing heavy is imported here, so that the command line can refuse
a wrong flag at once.
"""

import dataclasses
import math
import os
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import SettingError


@dataclass(frozen=True)
class Bounds:
    """Between which values a number lies; in a tuple, each of its numbers."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    """Like `least`, but not this value itself."""
    below: float | None = None
    """Like `most`, but not this value itself."""

    def hold(self, value: Any) -> bool:
        """Whether a number lies between them; NaN does not."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        low = self.least if self.above is None else self.above
        high = self.most if self.below is None else self.below
        if high is None:
            return f"above {low:g}" if self.least is None else f"of at least {low:g}"
        opening = "(" if self.above is not None else "["
        closing = ")" if self.below is not None else "]"
        first = "-inf" if low is None else f"{low:.15g}"
        return f"in {opening}{first}, {high:.15g}{closing}"


@dataclass(frozen=True)
class Pattern:
    """What a text must look like, and how that is said."""

    regex: str
    words: str

    def hold(self, value: Any) -> bool:
        return re.fullmatch(self.regex, str(value)) is not None

    def __str__(self) -> str:
        return f"as {self.words}"


Count = Annotated[int, Bounds(1)]
Whole = Annotated[int, Bounds(0)]
Threads = Annotated[int, Bounds(1, 1024)]  # more would only use up the memory
Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]
Seed = Annotated[int, Bounds(0, 2**63 - 1)]  # as far as torch's go
SceneSeed = Annotated[int, Bounds(0, 99_999)]  # as `evaluation.SEEDS` allows
Side = Annotated[int, Bounds(16)]  # pixels; the small backbone makes one cell of less
Port = Annotated[int, Bounds(1, 65535)]  # of TCP
# A class of a user's own; see `plugins.load_class`.
CLASS_PATH = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
ClassPath = Annotated[str, Pattern(CLASS_PATH, "module:Class")]

StillTask = Literal["so100_pick_place", "openarm_handover", "openarm_insertion"]
TaskName = Literal[StillTask, "so100_belt"]
# What a virtual arm stands in: something that waits until the arm is ready.
SceneName = Literal[StillTask, "alone"]


def check_settings(settings: Any) -> None:
    """SettingError for the first field of a dataclass that its type does not allow."""
    hints = _hints(type(settings))
    for field in dataclasses.fields(settings):
        check_value(field.name, getattr(settings, field.name), hints[field.name])


def check_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """The same of the arguments that a function is about to be called with."""
    hints = _hints(function)
    for name, value in values.items():
        check_value(name, value, hints[name])


def check_named(known: type, values: Mapping[str, Any]) -> None:
    """The same of some fields of a dataclass, given by name."""
    hints = _hints(known)
    names = [field.name for field in dataclasses.fields(known)]
    for name, value in values.items():
        if name not in names:
            raise SettingError(f"no setting '{name}': known are {', '.join(names)}")
        check_value(name, value, hints[name])


def check_value(name: str, value: Any, hint: Any) -> None:
    """The same of one value, against an annotation."""
    if not _fits(value, hint, ()):
        raise SettingError(f"{name} is {value!r}, expected {_said(hint, ())}")


@cache
def _hints(of: Any) -> dict[str, Any]:
    return get_type_hints(of, include_extras=True)


Limit = Bounds | Pattern


def _split(hint: Any, limits: tuple[Limit, ...]) -> tuple[Any, tuple[Limit, ...]]:
    """An annotation without `Annotated`, and the limits in it."""
    while get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        limits += tuple(extra for extra in extras if isinstance(extra, Limit))
    return hint, limits


def _fits(value: Any, hint: Any, limits: tuple[Limit, ...]) -> bool:
    hint, limits = _split(hint, limits)
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is str:
        return isinstance(value, str) and all(one.hold(value) for one in limits)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one, limits) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inner[1:] == (...,):
            inner = (inner[0],) * len(value)
        return len(value) == len(inner) and all(
            _fits(one, kind, limits) for one, kind in zip(value, inner, strict=True)
        )
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, inner[0], ()) and _fits(one, inner[1], limits)
            for key, one in value.items()
        )
    if hint in (int, float):
        number = Integral if hint is int else Real
        good = isinstance(value, number) and not isinstance(value, bool)
        return good and math.isfinite(value) and all(one.hold(value) for one in limits)
    if hint is Path:
        return isinstance(value, str | os.PathLike)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _said(hint: Any, limits: tuple[Limit, ...]) -> str:
    hint, limits = _split(hint, limits)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {list(inner)}"
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not type(None)]
        return " or ".join(_said(kind, limits) for kind in kinds)
    if origin is tuple and inner[1:] == (...,):
        return f"any number of these: {_said(inner[0], limits)}"
    if origin is tuple:
        return f"{len(inner)} values, each {_said(inner[0], limits)}"
    if origin is dict:
        return f"names, and for each {_said(inner[1], limits)}"
    words = {
        int: "a whole number",
        float: "a finite number",
        str: "text",
        Path: "a path",
    }
    words[bool] = "True or False"
    said = words.get(hint, getattr(hint, "__name__", str(hint)))
    return " ".join([said, *map(str, limits)])
