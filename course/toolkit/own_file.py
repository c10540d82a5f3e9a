"""The file of the learner's own functions: read, and changed one function at a time.

Each function stands in a section, under a mark such as `# %% 05.attend`. The file is
the learner's: whatever else is written in it stays.
"""

import ast
import builtins
import inspect
import symtable
import textwrap
from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path
from types import FunctionType
from typing import Any

from act_minimal.support.errors import UserError
from act_minimal.support.files import atomic_file, reason, write_text

HEADER = '''"""My own ACT: each function was kept when its check said right."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
'''
MARK = "# %% "


class NotKept(UserError):
    """Why a function cannot be kept, in half a sentence."""


# --- the file -------------------------------------------------------------------------


def read(path: Path) -> str:
    """The text of the file, "" where there is none; UserError if it is no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def split(text: str, names: Collection[str]) -> list[tuple[str, str]]:
    """A text as sections (name, text under its mark); the first one has the name "".

    Only the marks of these names part it: other comments, `# %% notes` too, belong to
    the section that they stand in.
    """
    marks = {MARK + name: name for name in names}
    sections: list[tuple[str, list[str]]] = [("", [])]
    for line in text.split("\n"):
        if line.rstrip() in marks:
            sections.append((marks[line.rstrip()], []))
        else:
            sections[-1][1].append(line)
    return [(name, "\n".join(lines)) for name, lines in sections]


def join(sections: list[tuple[str, str]]) -> str:
    """The text of sections; the opposite of `split`."""
    parts = [f"{MARK}{name}\n{text}" if name else text for name, text in sections]
    return "\n".join(parts)


def put(path: Path, key: str, function: Any, names: Mapping[str, str]) -> str:
    """Write a function's source into the section `key`; all else stays as it is.

    `names` are those that functions have in the file, by the names of their sections.
    Where the old text can neither stay nor be told apart, it is set aside; returns a
    sentence about that, or "".

    Raises:
        NotKept: the function cannot live in the file.
        UserError: the file cannot be read or written.
    """
    text = read(path)
    sections = split(text, names)
    lost = False
    if len(sections) == 1 and HEADER.strip() not in text:
        lost = bool(text.strip())  # no file of ours
        sections = [("", HEADER)]
    source = _source(function, names[key], names)
    i = max((i for i, (name, _) in enumerate(sections) if name == key), default=None)
    if i is None:
        last, above = sections[-1]
        sections[-1] = last, above.rstrip("\n") + "\n\n"
        sections.append((key, source + "\n"))
    else:
        try:
            sections[i] = key, replace(sections[i][1], names[key], source)
        except (SyntaxError, ValueError):
            lost = True
            sections[i] = key, source + "\n\n"
    _check_names(source, [HEADER, *(text for _, text in sections)])
    backup = _set_aside(path) if lost else None
    write_text(path, join(sections).rstrip("\n") + "\n")
    return f"What {path.name} held before is in {backup.name}." if backup else ""


def replace(text: str, name: str, source: str) -> str:
    """A section's text with another definition of a name.

    What goes is what gave the name its value: a function, or `name = other` and other.

    Raises:
        SyntaxError: the text is no Python, or has two statements in one line.
    """
    statements = ast.parse(text).body
    if any(one.end_lineno == two.lineno for one, two in pairwise(statements)):
        raise SyntaxError("two statements in one line")
    others = {
        node.value.id
        for node in statements
        if _binds(node, {name})
        and isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Name)
    }
    old = [node for node in statements if _binds(node, {name} | others)]
    lines = text.split("\n")
    place = len(lines)
    for node in reversed(old):
        decorators = getattr(node, "decorator_list", [])
        place = min(one.lineno for one in (node, *decorators)) - 1
        del lines[place : node.end_lineno]
        while node is not old[0] and not lines[place - 1]:  # blank lines between two
            place -= 1
            del lines[place]
    return "\n".join([*lines[:place], source, *lines[place:]])


def _binds(node: ast.stmt, names: set[str]) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name in names
    if isinstance(node, ast.Assign):
        targets = node.targets
        return all(isinstance(x, ast.Name) and x.id in names for x in targets)
    return False


def _set_aside(path: Path) -> Path:
    """Copy the file to the first name of its backups that is free."""
    backup, i = path.with_name(f"{path.name}.bak"), 1
    while backup.exists():
        i += 1
        backup = path.with_name(f"{path.name}.bak{i}")
    with atomic_file(backup, replace=False) as temporary:
        temporary.write_bytes(path.read_bytes())
    return backup


# --- a function's source --------------------------------------------------------------


def _source(function: Any, name: str, names: Collection[str]) -> str:
    """The source of a function, with a line that gives it its name in the file."""
    if not isinstance(function, FunctionType):
        kind = type(function).__name__
        raise NotKept(f"a {kind} has no source of its own; write a function with `def`")
    if function.__name__ == "<lambda>":
        raise NotKept("a lambda has no source of its own; write it with `def`")
    try:
        source = textwrap.dedent(inspect.getsource(function)).rstrip()
        [definition] = ast.parse(source).body
    except (OSError, TypeError, SyntaxError, ValueError):
        raise NotKept("its source is not found; write it in a cell") from None
    if not isinstance(definition, ast.FunctionDef):
        raise NotKept("its source is no `def`; write it in a cell of its own")
    if len(split(source, names)) > 1:
        raise NotKept(f"it holds a mark of a piece (`{MARK}...`); take that line out")
    if definition.name != name:
        source += f"\n\n\n{name} = {definition.name}"
    return source


def _check_names(source: str, texts: list[str]) -> None:
    """NotKept if a function uses what none of the file's texts defines."""
    try:
        used = outside(source)
    except SyntaxError:  # it changes a variable of a function around it
        raise NotKept("it needs the function around it; write it by itself") from None
    if missing := sorted(used.difference(*map(_defined, texts))):
        named = " and ".join(f"`{one}`" for one in missing)
        are, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        raise NotKept(
            f"it uses {named}, which {are} defined outside the function; put {them} "
            "inside"
        )


def outside(source: str) -> set[str]:
    """The names that a text uses and does not define; Python's own are left out."""
    used: set[str] = set()
    tables = [symtable.symtable(source, "", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        symbols = table.get_symbols()
        used |= {s.get_name() for s in symbols if s.is_global() and s.is_referenced()}
    return used - _defined(source) - set(dir(builtins))


def _defined(text: str) -> set[str]:
    """The names that a text defines at its top level; none if it is no Python."""
    try:
        symbols = symtable.symtable(text, "", "exec").get_symbols()
    except (SyntaxError, ValueError):
        return set()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
