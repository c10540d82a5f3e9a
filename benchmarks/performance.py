"""Write the tables of docs/performance.md from data/results/*.json.

    uv run python -m benchmarks.performance

`benchmarks.report` does it too. A test fails when they differ from the result files.
"""

from act_minimal.support.files import write_text

from .results import ROOT
from .tables import Columns, Row, load, made_by, table_of, with_block

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
    rows = [
        cell | way | {"name": name}
        for cell in result["rows"]
        for name, way in cell["ways"].items()
    ]
    columns: Columns = {
        "what": "{what}, batch {batch}",
        "cameras": lambda r: CASES[r["case"]],
        "whose": lambda r: WAYS.get(r["name"], f"ours, {r['name']}"),
        "median (range)": lambda r: "{} ms ({}-{})".format(
            *(ms(r[f"seconds_{x}"]) for x in TIMES)
        ),
        "LeRobot's time over it": lambda r: "" if r["name"] == "lerobot" else ratio(r),
        "share of matrix rate": lambda r: f"{100 * r['share_of_matrix_rate']:.0f} %",
        "n": "{n}",
    }
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
    return table_of(rows, columns) + note + made_by(result)


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
        rows.append({"what": what, "case": CASES[case]} | sides)
    columns: Columns = {
        "two steps of": "{what}",
        "cameras": "{case}",
        "ours, MiB": "{ours:,.0f}",
        "LeRobot's, MiB": "{lerobot:,.0f}",
    }
    return table_of(rows, columns)


def loader_table(result: Row) -> str:
    """Ours against a file per sample, the original's way, and LeRobot's dataset."""
    found = result["results"]
    rows = [row | {"size": size, "turns": result["n"]} for size, row in found.items()]
    other, theirs = next((key, whose) for key, whose in OTHERS if key in rows[0])
    columns: Columns = {
        "cameras": lambda r: f"two {r['size'].replace('x', ' × ')}",
        "ours, samples/s": "{ours:,.0f}",
        f"{theirs}, samples/s": f"{{{other}:,.0f}}",
        "ratio (range)": "{ratio:.0f} × ({ratio_range[0]:.0f}-{ratio_range[1]:.0f})",
        "n": "{turns}",
    }
    return table_of(rows, columns)


def loader(result: Row) -> str:
    """The same, with what it was made by."""
    return loader_table(result) + made_by(result)


def data(result: Row) -> str:
    """Import and export against decoding the dataset's video once."""
    columns: Columns = {
        "dataset": "{name}",
        "decoding once, s": "{seconds[usual]:.1f}",
        "export, s": "{seconds[export]:.1f}",
        "import, s": "{seconds[import]:.1f}",
        "decoding over export": lambda r: ratio(r["export_against_usual"]),
        "decoding over import": lambda r: ratio(r["import_against_usual"]),
        "fastest decoding over import": "{import_against_fastest[ratio]:.2f} ×",
        "PSNR, dB": "{psnr_db:.0f}",
    }
    rows = [{"name": name} | row for name, row in result["results"].items()]
    note = f"\n\n{result['episodes']} episodes, n = {result['n']}."
    return table_of(rows, columns) + note + made_by(result)


def tricks(result: Row) -> str:
    """How much longer a step is without each trick."""
    columns: Columns = {
        "what": lambda r: f"{r['what']}, batch {r['batch']}",
        "cameras": lambda r: CASES[r["case"]],
        **{
            f"without {name}": lambda r, name=name: ratio(r["without"][name])
            for name in result["rows"][0]["without"]
        },
        "n": "{n}",
    }
    return table_of(result["rows"], columns) + made_by(result)


BLOCKS = (
    ("speed", "lerobot_speed", speed),
    ("memory", "lerobot_speed", memory),
    ("gpu", "lerobot_speed_cuda", gpu),
    ("loader", "loader", loader),
    ("lerobot_loader", "lerobot_loader", loader),
    ("data", "lerobot_data", data),
    ("tricks", "tricks", tricks),
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
