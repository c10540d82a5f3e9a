"""Wrong answers made mechanically: a solution with one thing changed."""

import ast
import copy
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from course.toolkit.paths import ROOT
from course.toolkit.stubs import split_exercise

SOURCES = sorted((ROOT / "notebooks").rglob("src/*.py"))
SECONDS = 5  # of CPU time, for one answer that does not end

# --- exercises of the lessons ---------------------------------------------------------


@dataclass
class Solved:
    """An exercise as a lesson has it: its cell, solved and not, and what is checked."""

    name: str
    learner: str
    teacher: str
    answers: tuple[str, ...]
    """Expressions that the cell hands to `check`."""
    before: str
    """Imports and functions of the cells above."""

    def run(self, code: Any) -> list[Any]:
        """The answers that this code gives, solved or not."""
        names: dict[str, Any] = {}
        exec(self.before, names)
        exec(code if isinstance(code, str) else compile(code, self.name, "exec"), names)
        return [eval(answer, names) for answer in self.answers]


def solved_exercises() -> dict[str, Solved]:
    """Every exercise of every lesson, by name."""
    found = {}
    for path in SOURCES:
        before = ""
        for cell in re.split(r"^# %%.*$", path.read_text("utf-8"), flags=re.MULTILINE):
            if not re.search(r"^[^#\s]", cell, re.MULTILINE):
                continue
            learner, teacher, solution = split_exercise(cell, path.name)
            tree = ast.parse(teacher)
            call: Any
            for call in ast.walk(tree):
                if solution and _is_call_of(call, "check"):
                    name, *answers = call.args
                    texts = tuple(map(ast.unparse, answers))
                    cut = _definitions(learner), _definitions(teacher)
                    one = Solved(ast.literal_eval(name), *cut, texts, before)
                    found[one.name] = one
            kept = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
            tree.body = [x for x in tree.body if isinstance(x, kept)]
            before += ast.unparse(tree) + "\n"
    return found


def _is_call_of(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


def _definitions(source: str) -> str:
    """A cell without the lines that check and show."""
    tree = ast.parse(source)
    tree.body = [
        x
        for x in tree.body
        if not isinstance(x, ast.Expr)
        and not any(_is_call_of(call, "check") for call in ast.walk(x))
    ]
    return ast.unparse(tree)


# --- mutation -------------------------------------------------------------------------

OTHER_OPERATOR = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
}
OTHER_COMPARISON = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
PAIRS = ("sum mean", "min max", "minimum maximum", "floor ceil", "sin cos", "std var")
OTHER_NAME = {
    a: b for pair in PAIRS for a, b in (pair.split(), reversed(pair.split()))
} | {"abs": "square", "isfinite": "isnan", "log": "exp", "exp": "square"}
ORDERED = ast.Sub | ast.Div | ast.FloorDiv | ast.Mod | ast.Pow | ast.MatMult


def mutants(source: str) -> Iterator[tuple[str, ast.Module]]:
    """Each program that differs by one change in a function, and the changed line."""
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for i, statement, new in _all_changes(tree):
        changed = copy.deepcopy(tree)
        parent, field, where = _places(changed)[i]
        if where is None:
            setattr(parent, field, new)
        else:
            getattr(parent, field)[where] = new
        ast.fix_missing_locations(changed)
        if (text := ast.unparse(changed)) not in seen:
            seen.add(text)
            yield _changed_line(ast.unparse(tree), text, statement), changed


def forgetful(source: str, prints: bool = False) -> ast.Module:
    """A program whose functions return nothing, or print what they should return."""

    class Forget(ast.NodeTransformer):
        def visit_Return(self, node: ast.Return) -> ast.Expr:
            value: Any = node.value
            call = ast.Call(ast.Name("print", ast.Load()), [value], [])
            return ast.Expr(call if prints else value)

    return ast.fix_missing_locations(Forget().visit(ast.parse(source)))


def _changed_line(before: str, after: str, statement: ast.stmt) -> str:
    old, new = before.splitlines(), after.splitlines()
    for a, b in zip(old, new, strict=False):
        if a != b:
            gone = len(old) > len(new) or b.strip() == "pass"
            return f"without {a.strip()}" if gone else b.strip()
    return ast.unparse(statement).splitlines()[0]


def _places(tree: ast.AST) -> list[tuple[ast.AST, str, int | None]]:
    """Where every node below the functions of a module stands, always in one order."""
    found = []
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if field in ("args", "decorator_list", "returns") and isinstance(
                node, ast.FunctionDef
            ):
                continue
            if isinstance(value, ast.AST):
                found.append((node, field, None))
            elif isinstance(value, list):
                found += [(node, field, i) for i in range(len(value))]
    return found


def _all_changes(tree: ast.Module) -> Iterator[tuple[int, ast.stmt, ast.AST]]:
    places = _places(tree)
    nodes = [
        getattr(parent, field) if where is None else getattr(parent, field)[where]
        for parent, field, where in places
    ]
    for function in tree.body:
        if not isinstance(function, ast.FunctionDef | ast.ClassDef):
            continue
        inside = {id(node): node for node in ast.walk(function)}
        strings = sorted(
            {n.value for n in inside.values() if _is_word(n)}, key=lambda x: (len(x), x)
        )
        arguments = [n.arg for n in inside.values() if isinstance(n, ast.arg)]
        for i, (node, place) in enumerate(zip(nodes, places, strict=True)):
            if id(node) in inside and node is not function:
                for new in _changes(node, place[1], strings, arguments):
                    yield i, function, copy.deepcopy(new)


def _is_word(node: Any) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"\w+", node.value) is not None
    )


def _changes(node: Any, field: str, strings: list, arguments: list) -> Iterator:
    """What may stand in a node's place."""
    if isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
        if type(node.op) in OTHER_OPERATOR:
            yield ast.BinOp(node.left, OTHER_OPERATOR[type(node.op)](), node.right)
        if isinstance(node.op, ORDERED):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in OTHER_COMPARISON.get(type(node.ops[0]), ()):
            yield ast.Compare(node.left, [other()], node.comparators)
    elif isinstance(node, ast.Constant):
        yield from map(ast.Constant, _other_values(node, strings))
    elif isinstance(node, ast.Call):
        yield from _other_calls(node)
    elif isinstance(node, ast.Name) and node.id in arguments:
        other = arguments[(arguments.index(node.id) + 1) % len(arguments)]
        if isinstance(node.ctx, ast.Load) and field != "func" and other != node.id:
            yield ast.Name(other, ast.Load())
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        if field != "slice" and len(node.elts) > 1:
            first, second, *rest = node.elts
            yield ast.Tuple([second, first, *rest], ast.Load())
    elif isinstance(node, ast.Slice):
        for gone in ("lower", "upper", "step"):
            if getattr(node, gone) is not None:
                parts: Any = {k: getattr(node, k) for k in ("lower", "upper", "step")}
                yield ast.Slice(**parts | {gone: None})
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Expr(node.value)
        yield ast.Return(ast.UnaryOp(ast.USub(), node.value))
    elif isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not docstring and not isinstance(node, ast.Pass):
            yield ast.Pass()


def _other_values(node: ast.Constant, strings: list[str]) -> list[Any]:
    value: Any = node.value
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [2 * value or 1.0]
    if isinstance(value, bytes):
        return [value[:-1]]
    if _is_word(node) and len(strings) > 1:
        return [strings[(strings.index(value) + 1) % len(strings)]]
    return []


def _other_calls(node: ast.Call) -> Iterator[ast.expr]:
    function, values, keywords = node.func, node.args, node.keywords
    method = isinstance(function, ast.Attribute)
    name = function.attr if method else getattr(function, "id", "")
    if method and ast.unparse(function.value) not in ("np", "torch", "math", "F"):
        yield function.value
    elif values:
        yield values[0]
    if len(values) > 1:
        yield ast.Call(function, [values[1], values[0], *values[2:]], keywords)
    if values:
        yield ast.Call(function, values[:-1], keywords)
    for i in range(len(keywords)):
        yield ast.Call(function, values, keywords[:i] + keywords[i + 1 :])
    if name in ("range", "arange"):
        for operator in (ast.Add(), ast.Sub()):
            last = ast.BinOp(values[-1], operator, ast.Constant(1))
            yield ast.Call(function, [*values[:-1], last], keywords)
    if name in OTHER_NAME:
        other: Any = copy.copy(function)
        setattr(other, "attr" if method else "id", OTHER_NAME[name])
        yield ast.Call(other, values, keywords)


# --- behaviour ------------------------------------------------------------------------


class RanOut(Exception):
    """An answer took longer than `SECONDS`."""


@contextmanager
def limited_time() -> Iterator[None]:
    """CPU time, so that a busy machine changes nothing; not on Windows."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise RanOut

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def recorded(function: Callable, calls: list[tuple]) -> Callable:
    """The same function, which keeps what it is called with."""

    def call(*values: Any) -> Any:
        calls.append(duplicate(values))
        return function(*values)

    return call


def duplicate(value: Any) -> Any:
    """A copy of numbers and of what holds them; other objects stay what they are."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {key: duplicate(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(duplicate, value))
    return value


def sizes_and_numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Each number of an input and each length of its arrays, with where it stands."""
    if isinstance(value, bool | str | bytes):
        return
    if isinstance(value, int | float):
        yield name, value
    elif isinstance(value, np.ndarray | torch.Tensor):
        yield from ((f"{name}.shape[{i}]", n) for i, n in enumerate(value.shape))
    elif isinstance(value, dict):
        for key, x in value.items():
            yield from sizes_and_numbers(x, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        yield f"len({name})", len(value)
        for i, x in enumerate(value):
            yield from sizes_and_numbers(x, f"{name}[{i}]")
    elif hasattr(value, "state"):  # the weights of a network
        yield from sizes_and_numbers(value.state, name)


def nearby(value: Any, rng: np.random.Generator) -> Any:
    """Another input of the same kind: other numbers, of the same sign and shape."""
    if isinstance(value, bool | np.bool_):
        return value
    if isinstance(value, int | np.integer):
        return type(value)(value + rng.integers(0, 3)) if value > 0 else value
    if isinstance(value, float | np.floating):
        return type(value)(value * rng.uniform(0.7, 1.2))
    if isinstance(value, torch.Tensor):
        return torch.from_numpy(np.asarray(nearby(value.detach().numpy(), rng)))
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "b":
            return rng.permutation(value)
        if value.dtype.kind == "f":
            return (value * rng.uniform(0.7, 1.2, value.shape)).astype(value.dtype)
        return value.copy()
    if isinstance(value, dict):
        return {key: nearby(x, rng) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(nearby(x, rng) for x in value)
    return value


def outcome(function: Callable, values: tuple) -> Any:
    """What a function gives, as arrays and bytes; None if it raises."""
    try:
        return _plain(function(*duplicate(values)))
    except Exception:
        return None


def _plain(answer: Any) -> Any:
    if isinstance(answer, torch.Tensor):
        return answer.detach().double().numpy()
    if isinstance(answer, bytes | bytearray | str):
        return bytes(answer, "utf-8") if isinstance(answer, str) else bytes(answer)
    if isinstance(answer, list | tuple):
        try:
            return np.asarray(answer, float)
        except (TypeError, ValueError):
            return [_plain(part) for part in answer]
    return np.asarray(answer, float)


def agree(a: Any, b: Any) -> bool:
    """Whether two outcomes are the same, up to what a check lets pass."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        scale = np.abs(a[np.isfinite(a)]).max(initial=1e-9)
        return a.shape == b.shape and np.allclose(
            a, b, rtol=0, atol=2e-3 * scale, equal_nan=True
        )
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(agree, a, b))
    return a is b is None or (isinstance(a, bytes) and a == b)
