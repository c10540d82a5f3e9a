"""Write the tables of docs/performance.md from data/results/*.json.

    uv run python -m benchmarks.performance

`benchmarks.report` does it too. A test fails when they differ from the result files.
"""

from act_minimal.support.files import write_text

from .results import ROOT
from .tables import Row, load, made_by, table, with_block

PAGE = ROOT / "docs" / "performance.md"
TIMES = ("median", "min", "max")
CASES = {"two_240x320": "two 240 × 320", "one_480x640": "one 480 × 640"}
WAYS = {
    "lerobot": "LeRobot",
    "lerobot from uint8": "LeRobot, making its float images in the step",
    "ours": "ours",
    "onnx": "ours, ONNX Runtime",
}
OTHERS = (("lerobot", "LeRobot"), ("baseline", "a file per sample"))


def ratio(row: Row) -> str:
    """`1.32 × (1.25-1.36)`, the median of neighbouring runs and their range."""
    low, high = row.get("ratio_range") or row["range"]
    return f"{row['ratio']:.2f} × ({low:.2f}-{high:.2f})"


def ms(seconds: float) -> str:
    """Milliseconds: `103`, `1.24`."""
    return f"{seconds * 1e3:.{0 if seconds >= 0.02 else 2}f}"


def speed(result: Row) -> str:
    """Ours against LeRobot's, way by way."""
    rows = []
    for cell in result["rows"]:
        for name, way in cell["ways"].items():
            median, low, high = (ms(way[f"seconds_{x}"]) for x in TIMES)
            rows.append(
                [
                    f"{cell['what']}, batch {cell['batch']}",
                    CASES[cell["case"]],
                    WAYS.get(name, f"ours, {name}"),
                    f"{median} ms ({low}-{high})",
                    "" if name == "lerobot" else ratio(way),
                    f"{100 * way['share_of_matrix_rate']:.0f} %",
                    str(cell["n"]),
                ]
            )
    head = ["what", "cameras", "whose", "median (range)", "LeRobot's time over it"]
    head += ["share of matrix rate", "n"]
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
        f"({CASES[r['case']]}, batch {r['batch']})."
    )
    return speed(result).rstrip() + note


def memory(result: Row) -> str:
    """Peak memory, each side in a process of its own."""
    rows = []
    for key, sides in result["peak_memory_mib"].items():
        what, case = key.split(" ")
        numbers = [f"{sides[side]:,.0f}" for side in ("ours", "lerobot")]
        rows.append([what, CASES[case], *numbers])
    head = ["two steps of", "cameras", "ours, MiB", "LeRobot's, MiB"]
    return table(head, rows)


def loader(result: Row) -> str:
    """Ours against a file per sample, the original's way, and LeRobot's dataset."""
    rows = []
    first = next(iter(result["results"].values()))
    other, theirs = next((key, whose) for key, whose in OTHERS if key in first)
    for size, r in result["results"].items():
        low, high = r["ratio_range"]
        rows.append(
            [
                f"two {size.replace('x', ' × ')}",
                f"{r['ours']:,.0f}",
                f"{r[other]:,.0f}",
                f"{r['ratio']:.0f} × ({low:.0f}-{high:.0f})",
                str(result["n"]),
            ]
        )
    head = ["cameras", "ours, samples/s", f"{theirs}, samples/s", "ratio (range)", "n"]
    return table(head, rows) + made_by(result)


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
