"""The table of heads on ACT's memory: claim C29."""

from .tables import RATE, Columns, Row, table_of

NAMES = {
    "post": "two ways around a post",
    "human": "pick and place, human-like",
    "scripted": "pick and place, scripted",
    "handover": "handover, human-like",
    "insertion": "insertion, human-like",
}


def heads(result: Row) -> str:
    """Success, ways kept, time and smoothness, task by task."""

    def left(row: Row) -> str:
        if "went_left" not in row:
            return ""
        return f"{100 * row['went_left'] / max(row['success'], 1e-9):.0f} %"

    def place(row: Row) -> str:
        there = row.get("rarer_way")
        return "" if there is None else f"{100 * there:.0f} %"

    times = {row["head"]: row["ms"] for row in result["chunk_ms"]}

    def ms(row: Row) -> str:
        found = row.get("ms", times.get(row["head"]))
        return "" if found is None else f"{found:.1f}"

    columns: Columns = {
        "task": lambda r: NAMES[r["task"]],
        "head": "{head}",
        "demonstrations": "{demonstrations}",
        "equal": "{budget}",
        "executed by": "{execution}",
        **RATE,
        "of these on the left": left,
        "rarer way, at one place": place,
        "ms a chunk": ms,
        "jerk": "{jerk:.0f}",
        "training, s": "{train_seconds:.0f}",
    }
    return table_of(result["summary"], columns)
