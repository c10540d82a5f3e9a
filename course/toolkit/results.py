"""Numbers from `data/results`, for prose, figures and predictions.

Prose names a number as `{{file list key=value ... -> field format}}`; the generator of
the notebooks fills it in, and a test fails when the text and the file disagree.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from act_minimal.support.errors import UserError

from .paths import ROOT

Row = dict[str, Any]
NOT_YET = "(not measured yet)"
NONE = "none was found"  # what was searched for does not exist: null in the file
RESULTS = ROOT / "data" / "results"


class ResultError(UserError):
    """A number that the result files do not hold; says where it was looked for."""


def load_result(name: str, folder: Path | None = None) -> Row:
    """A result file as it is: "state", "claims/C03", ...

    Raises:
        ResultError: no such file; lists those there are.
    """
    folder = folder or RESULTS
    path = folder / f"{name}.json"
    if not path.exists():
        known = sorted(
            str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.json")
        )
        raise ResultError(f"no result '{name}'; there are: {', '.join(known)}")
    return json.loads(path.read_text(encoding="utf-8"))


def find_row(name: str, path: str, folder: Path | None = None, **labels: Any) -> Any:
    """The one entry of a result file that has these labels.

    `path` is keys joined by dots, to an entry or to a list of entries; labels tell
    those of a list apart.

    Raises:
        ResultError: no such key, or not exactly one such entry.
    """
    found: Any = load_result(name, folder)
    for key in path.split("."):
        if not isinstance(found, dict) or key not in found:
            there = list(found) if isinstance(found, dict) else type(found).__name__
            raise ResultError(f"{name}: no '{key}' on the way to {path}; found {there}")
        found = found[key]
    if isinstance(found, list):
        rows = [r for r in found if all(r.get(k) == v for k, v in labels.items())]
        if len(rows) != 1:
            raise ResultError(
                f"{name}: {len(rows)} entries of {path} have {labels}, expected one"
            )
        return rows[0]
    return found


def rate_text(row: Row) -> str:
    """`92 % (95 % interval 89-95 %, n = 300)` of a row with a success rate."""
    low, high = row["interval"]
    rate = row["success"] if "success" in row else row["rate"]
    return (
        f"{100 * rate:.0f} % (95 % interval {100 * low:.0f}-{100 * high:.0f} %, "
        f"n = {row['n']})"
    )


def look_up(expression: str, folder: Path | None = None) -> str:
    """The text that stands for `expression` in prose; see the module.

    Formats: `percent` (of a share), `percent1`, or a number of decimals; without a
    field, a success rate with its interval. A path that leads to a number itself takes
    a format only: `{{file key -> 2}}`. `NONE` stands for null.

    Raises:
        ResultError: the expression cannot be read, or leads nowhere.
    """
    where, _, what = expression.partition("->")
    name, path, *pairs = shlex.split(where)  # gripper='as asked' has a blank
    labels = dict(pair.split("=", 1) for pair in pairs)
    found = find_row(name, path, folder, **{k: _value(v) for k, v in labels.items()})
    if not isinstance(found, dict | list):  # the path itself leads to a number
        what = f"value {what}"
        found = {"value": found}
    if not what.strip() and isinstance(found, dict):
        return rate_text(found)
    field, *style = what.split()
    number: Any = found
    for key in field.split("."):
        if isinstance(number, list):
            number = number[int(key)]
        elif isinstance(number, dict) and key in number:
            number = number[key]
        else:
            raise ResultError(f"{expression}: no '{key}' in {number}")
    if number is None:
        return NONE
    if not style:
        return str(number)
    if style[0].startswith("percent"):
        decimals = style[0].removeprefix("percent") or "0"
        return f"{100 * float(number):.{decimals}f} %"
    return f"{float(number):.{int(style[0])}f}"


def fill(text: str, folder: Path | None = None) -> str:
    """Prose with its numbers in place of `{{...}}`.

    Raises:
        ResultError: a number that its result file does not hold. A file that does not
            exist is not an error: it says "(not measured yet)".
    """

    def number(match: re.Match) -> str:
        words = match[1].split()
        if not ((folder or RESULTS) / f"{words[0]}.json").exists():
            return NOT_YET
        try:
            return look_up(" ".join(words), folder)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise ResultError(f"{{{{{match[1]}}}}} cannot be read: {error}") from error

    return re.sub(r"\{\{(.+?)\}\}", number, text, flags=re.DOTALL)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
