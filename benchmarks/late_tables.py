"""Tables of predictions that take longer than a tick."""

from .tables import RATE, Columns, Row, success, table_of


def arm_late(result: Row) -> str:
    """Success with slow predictions, in ticks and in real time, and what they cost."""
    bus = result["bus"]
    rows = [
        {"name": "in simulation, delay in ticks"} | result["simulation"],
        {"name": "through the bus, in a thread"} | bus,
    ]
    rates, delays = bus["rate_hz"], (min(bus["delay"]), max(bus["delay_worst"]))
    note = (
        f"\n\nEach prediction takes at least {1000 * result['inference']:.0f} ms. "
        f"Through the bus the loop ran at {min(rates):.1f} to {max(rates):.1f} Hz; "
        f"{sum(bus['late_ticks'])} of {bus['ticks']} ticks were late. Predictions took "
        f"{delays[0]:.0f} to {delays[1]:.0f} ticks, observations were at most "
        f"{max(bus['age_worst']):.0f} ticks old, a trial had at most "
        f"{max(bus['holds']):.0f} ticks without an action, the largest seam was "
        f"{max(bus['seam']):.3f} rad; {sum(bus['dropped']):.0f} chunks were dropped."
    )
    return table_of(rows, {"": "{name}", **RATE}) + note


def late_chunks(result: Row) -> str:
    """Claim C23: ways of executing against delays, world by world."""
    found = {
        (r["world"], r["way"], r["delay"]): r
        for horizon in (10, 16, 25)  # the largest that was tried
        for r in result["summary"]
        if r["spread"] == 1 and r["horizon"] == horizon
    }
    found |= {
        (r["world"], r["way"], r["delay"]): r
        for r in result["summary"]
        if r["spread"] == 1 and r["way"] == "ensemble"
    }
    delays = sorted({delay for _, _, delay in found})
    rows = [
        {"world": world, "way": way}
        | {f"{d}": found.get((world, way, d)) for d in delays}
        for world, way in dict.fromkeys((w, way) for w, way, _ in found)
    ]
    columns: Columns = {"world": "{world}", "way": "{way}"}
    for d in delays:
        columns[f"d = {d}"] = lambda r, d=d: success(r[f"{d}"]) if r[f"{d}"] else ""

    def shake(row: Row) -> str:
        at = row["8"] or {}
        return f"{at['near'] / at['apart']:.2f}" if "apart" in at else ""

    columns["acceleration near seams over elsewhere, d = 8"] = shake
    times = "; ".join(
        f"{name} {cost['mean']:.3f}"
        for name, cost in result["costs"]["ms_a_tick"].items()
    )
    return (
        table_of(rows, columns)
        + "\n\nA chunk is asked for every 25 ticks where the delay allows; for the "
        "ensemble as often as it allows. ms a tick, k = "
        f"{result['costs']['chunk_size']}: {times}."
    )
