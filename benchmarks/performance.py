"""Write the tables of docs/performance.md from data/results/*.json.

    uv run python -m benchmarks.performance

`benchmarks.report` does it too. A test fails when they differ from the result files.
"""

from act_minimal.files import write_text
from benchmarks.report import Row, load, made_by, table, with_block
from benchmarks.results import ROOT

PAGE = ROOT / "docs" / "performance.md"
TIMES = ("median", "min", "max")
CASES = {"two_240x320": "two 240 × 320", "one_480x640": "one 480 × 640"}
WAYS = {
    "lerobot": "LeRobot",
    "lerobot from uint8": "LeRobot, making its float images in the step",
    "ours": "ours",
    "onnx": "ours, ONNX Runtime",
}


def ratio(row: Row) -> str:
    """`1.32 × (1.25-1.36)`, the median of neighbouring runs and their range."""
    low, high = row.get("ratio_range") or row["range"]
    return f"{row['ratio']:.2f} × ({low:.2f}-{high:.2f})"


def goal(row: Row) -> str:
    """`1.40 ×, reached`."""
    if "goal" not in row:
        return ""
    return f"{row['goal']:.2f} ×, {'reached' if row['goal_reached'] else '**missed**'}"


def ms(seconds: float) -> str:
    """Milliseconds: `103`, `1.24`."""
    return f"{seconds * 1e3:.{0 if seconds >= 0.02 else 2}f}"


def speed(result: Row) -> str:
    """Ours against LeRobot's, way by way."""
    rows = []
    for cell in result["rows"]:
        best = max(cell["ways"], key=lambda name: cell["ways"][name]["ratio"])
        for name, way in cell["ways"].items():
            median, low, high = (ms(way[f"seconds_{x}"]) for x in TIMES)
            said = goal(way)
            if "goal" in cell and name == best:  # on a GPU: of the fastest way
                reached = "reached" if cell["goal_reached"] else "**missed**"
                said = f"{cell['goal']}, {reached}"
            rows.append(
                [
                    f"{cell['what']}, batch {cell['batch']}",
                    CASES[cell["case"]],
                    WAYS.get(name, f"ours, {name}"),
                    f"{median} ms ({low}-{high})",
                    "" if name == "lerobot" else ratio(way),
                    said,
                    f"{100 * way['share_of_matrix_rate']:.0f} %",
                    str(cell["n"]),
                ]
            )
    head = ["what", "cameras", "whose", "median (range)", "LeRobot's time over it"]
    head += ["goal", "share of matrix rate", "n"]
    rates = [f"{cell['matrix_gflop_per_s']:.0f}" for cell in result["rows"]]
    work = {
        f"{cell['what']} {CASES[cell['case']]}": f"{cell['gflop']:.0f}"
        for cell in result["rows"]
    }
    said = ", ".join(f"{what} {gflop}" for what, gflop in work.items())
    note = (
        f"\n\nMatrix products of 2048 × 2048 ran at {', '.join(rates)} GFLOP/s right "
        f"after each pair. GFLOP: {said}."
    )
    return table(head, rows) + note + made_by(result)


def gpu(result: Row) -> str:
    """The same on a GPU, with a word on bf16's losses."""
    r = result["loss_bf16"]
    note = (
        f"\n\nOn one {result['gpu']}. Over {r['n']} steps the loss in bf16, smoothed, "
        f"was at most {100 * r['apart']:.1f} % from that in float32 "
        f"({CASES[r['case']]}, batch {r['batch']}; goal: {r['goal']})."
    )
    return speed(result).rstrip() + note


def memory(result: Row) -> str:
    """Peak memory, each side in a process of its own."""
    rows = []
    for key, sides in result["peak_memory_mib"].items():
        what, case = key.split(" ")
        less = "yes" if sides["ours"] <= sides["lerobot"] else "**no**"
        numbers = [f"{sides[side]:,.0f}" for side in ("ours", "lerobot")]
        rows.append([what, CASES[case], *numbers, less])
    head = ["two steps of", "cameras", "ours, MiB", "LeRobot's, MiB", "at most as much"]
    return table(head, rows)


def loader(result: Row) -> str:
    """Ours against a file per sample, the original's way, and LeRobot's dataset."""
    rows = []
    for size, r in result["results"].items():
        other = "lerobot" if "lerobot" in r else "baseline"
        low, high = r["ratio_range"]
        rows.append(
            [
                f"two {size.replace('x', ' × ')}",
                f"{r['ours']:,.0f}",
                f"{r[other]:,.0f}",
                f"{r['ratio']:.0f} × ({low:.0f}-{high:.0f})",
                "yes" if result["goal_reached"][size] else "**no**",
                str(result["n"]),
            ]
        )
    theirs = "LeRobot" if "lerobot" in next(iter(result["results"].values())) else ""
    head = ["cameras", "ours, samples/s", f"{theirs or 'a file per sample'}, samples/s"]
    return table([*head, "ratio (range)", "20 × reached", "n"], rows) + made_by(result)


def data(result: Row) -> str:
    """Import and export against decoding the dataset's video once."""
    rows = []
    for name, r in result["results"].items():
        s = r["seconds"]
        rows.append(
            [
                name,
                *(f"{s[key]:.1f}" for key in ("usual", "export", "import")),
                *(ratio(r[f"{way}_against_usual"]) for way in ("export", "import")),
                f"{r['import_against_fastest']['ratio']:.2f} ×",
                f"{r['psnr_db']:.0f}",
            ]
        )
    head = ["dataset", "decoding once, s", "export, s", "import, s"]
    head += ["decoding over export", "decoding over import"]
    head += ["fastest decoding over import", "PSNR, dB"]
    note = f"\n\n{result['episodes']} episodes, n = {result['n']}."
    return table(head, rows) + note + made_by(result)


BLOCKS = (
    ("speed", "lerobot_speed", speed),
    ("memory", "lerobot_speed", memory),
    ("gpu", "lerobot_speed_cuda", gpu),
    ("loader", "loader", loader),
    ("lerobot_loader", "lerobot_loader", loader),
    ("data", "lerobot_data", data),
)


def page(text: str) -> str:
    """docs/performance.md with today's numbers."""
    for block, name, render in BLOCKS:
        found = load(name)
        if found:
            text = with_block(text, block, render(found))
    return text


def main() -> None:
    """Write the page."""
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
