"""Tables of predictions that take longer than a tick."""

from collections.abc import Sequence

from course.toolkit.toys import TOYS

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
    """Claim C23: ways of executing against delays, for two horizons."""
    steady = [r for r in result["summary"] if r["spread"] == 1]
    worlds = dict.fromkeys(r["world"] for r in steady)
    often = [r for r in steady if r["horizon"] == max(1, r["delay"])]
    seldom = [r for r in steady if r["horizon"] == 25 or r["way"] == "ensemble"]
    toys = [world for world in worlds if world in TOYS]
    times = "; ".join(
        f"{name} {cost['mean']:.3f}"
        for name, cost in result["costs"]["ms_a_tick"].items()
    )
    arms = [world for world in worlds if world not in toys]
    tables = []
    if arms:
        tables.append(
            "Chunks of 50 actions, one asked for every 25 ticks, by the ensemble as "
            "often as the delay allows:\n\n" + by_delay(seldom, arms)
        )
    if toys:
        tables.append(
            "Toys, chunks of 40 actions, one asked for as soon as the last has come:"
            "\n\n" + by_delay(often, toys)
        )
        tables.append(
            "Toys, one asked for every 25 ticks:\n\n" + by_delay(seldom, toys)
        )
    drawn = [r for r in result["summary"] if r["spread"] != 1]
    if drawn:
        some = [w for w in worlds if max(r["success"] for r in of(w, drawn)) > 0.5]
        tables.append(
            f"Delays that vary, their 99th percentile {drawn[0]['spread']:g} times the "
            "median d, one asked for every 25 ticks (without worlds in which no way "
            "reaches half):\n\n" + by_delay(drawn, some)
        )
    tables.append(
        "Best of 16 is tried with 25 ticks only, guidance with 8 and more: they take "
        f"long. ms a tick, k = {result['costs']['chunk_size']}: {times}."
    )
    return "\n\n".join(tables)


def of(world: str, rows: list[Row]) -> list[Row]:
    """Those of one world."""
    return [row for row in rows if row["world"] == world]


def by_delay(rows: list[Row], worlds: Sequence[str]) -> str:
    """A line for each world and way, a column for each delay."""
    delays = sorted({row["delay"] for row in rows})
    lines: list[Row] = []
    for world in worlds:
        mine = of(world, rows)
        for way in dict.fromkeys(row["way"] for row in mine):
            found = {f"{r['delay']}": r for r in mine if r["way"] == way}
            lines.append({"world": world.replace("_", " "), "way": way} | found)
    columns: Columns = {"world": "{world}", "way": "{way}"}
    for d in delays:
        columns[f"d = {d}"] = lambda r, d=d: success(r[f"{d}"]) if f"{d}" in r else ""

    def shake(line: Row) -> str:
        at = line.get("8", {})
        return f"{at['near'] / at['apart']:.2f}" if at.get("apart") else ""

    columns["acceleration near seams over elsewhere, d = 8"] = shake
    return table_of(lines, columns)
