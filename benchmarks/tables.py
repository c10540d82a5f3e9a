"""Tables of pages, filled from result files."""

from collections.abc import Callable, Iterable
from typing import Any

from act_minimal.support.files import read_json

from .results import RESULTS

Row = dict[str, Any]
Columns = dict[str, str | Callable[[Row], str]]
"""Head -> what stands below it: "{n} of {total}", with a row's keys, or a function."""


RUN = "uv run python -m "  # what each command begins with
USUAL = "2 cores (Intel(R) Xeon(R) Processor), torch 2.15.0, MuJoCo 4.0.0"


def load(name: str) -> Row | None:
    """A result file, if it has been made."""
    path = RESULTS / f"{name}.json"
    return read_json(path) if path.exists() else None


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table_of(rows: Iterable[Row], columns: Columns) -> str:
    """A Markdown table with a line for each row."""
    lines = [
        [say(r) if callable(say) else say.format_map(r) for say in columns.values()]
        for r in rows
    ]
    return table([*columns], lines)


def machine(result: Row) -> str:
    """What it was made on."""
    # Rows that were found again may have been made on another machine than the rest.
    runs = [r["machine"] for r in result.get("runs", ()) if "machine" in r]
    cpus = sorted({one["cpu"] for one in runs or [result["machine"]]})
    return (
        f"{result['machine']['cores']} cores ({' and '.join(cpus)}), torch "
        f"{result['versions']['torch']}, MuJoCo {result['versions']['mujoco']}"
    )


def made_by(result: Row) -> str:
    """What a table ends with, where its page says nothing else about the machine."""
    seeds = result.get("seeds")
    over = f" Seeds {', '.join(map(str, seeds))}." if seeds else ""
    return f"\n\nMade by `{result['command']}` on {machine(result)}.{over}\n"


def source(result: Row) -> str:
    """The same in short, on a page that gives `RUN` and `USUAL` once."""
    usual = USUAL.split(", ")
    other = [part for part in machine(result).split(", ") if part not in usual]
    on = f" on {', '.join(other)}" if other else ""
    return f"`{result['command'].removeprefix(RUN)}`{on}"


def with_block(text: str, name: str, content: str) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def success(row: Row) -> str:
    """`91 % [87, 94]`, of all seeds together."""
    low, high = row["interval"]
    rate = row["success"] if "success" in row else row["rate"]
    return f"{100 * rate:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


RATE: Columns = {"success": success, "n": "{n}"}
