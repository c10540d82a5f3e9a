"""The tables of `act diagnose`: faults and what named them, and policies that work."""

from .tables import Columns, Row, success, table_of


def named(row: Row) -> str:
    """The first two findings above a note, the right one in bold."""
    causes = [x["cause"] for x in row["found"] if x["level"] != "note"][:2]
    right = row.get("causes", ())
    words = [f"**{c}**" if c in right else c for c in causes]
    return ", ".join(words).replace("_", " ") or "nothing"


def diagnosis(result: Row) -> str:
    """The confusion table, what the cures bring, and the policies that work."""
    faults: Columns = {
        "fault": "{fault}",
        "where": "{where}",
        "found, first and second": named,
        "success with it": lambda r: success(r["with_it"]),
        "cure": "{cure}",
        "success with the cure": lambda r: success(r["cured"]),
    }
    healthy: Columns = {
        "policy that works": "{policy}",
        "task": "{task}",
        "success": lambda r: success(r["success"]),
        "found": named,
        "policy and data, s": "{look_seconds:.0f}",
    }
    text = (
        f"Of {result['of']} faults, each injected alone into a run that works, "
        f"{result['named_first_or_second']} are named first or second; of "
        f"{len(result['healthy'])} policies that work, "
        f"{result['healthy_with_a_wrong_finding']} are given a finding of the highest "
        "level. In bold: the right name. Thresholds were chosen on runs of this "
        "kind.\n\n"
    )
    return (
        text
        + table_of(result["faults"], faults)
        + "\n\n"
        + table_of(result["healthy"], healthy)
    )
