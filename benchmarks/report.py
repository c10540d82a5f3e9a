"""Write docs/results.md, and the README's tables, from data/results/*.json.

    uv run python -m benchmarks.report

A test fails when they differ from the result files.
"""

import re
from collections.abc import Callable
from functools import partial

from act_minimal.support.files import write_text
from hardware.virtual.contacts import DEEP, HARD, LASTING

from . import performance
from .claims import page as claims
from .diagnosis_tables import diagnosis
from .head_tables import heads
from .late_tables import arm_late, late_chunks
from .results import ROOT
from .tables import (
    RATE,
    RUN,
    USUAL,
    Columns,
    Row,
    load,
    made_by,
    source,
    success,
    table,
    table_of,
    with_block,
)


def per_seed(row: Row) -> str:
    """Each seed's success in %."""
    return ", ".join(f"{100 * rate:.0f}" for rate in row["each_seed"])


def seconds(row: Row) -> str:
    """Range of training times over seeds."""
    low, high = min(row["train_seconds"]), max(row["train_seconds"])
    return f"{low:.0f}-{high:.0f} s" if round(low) != round(high) else f"{low:.0f} s"


def best_first(row: Row) -> float:
    """What tables are sorted by."""
    return -row["success"]


SEEDS: Columns = RATE | {"each seed, %": per_seed}


def state(result: Row) -> str:
    """State policies against single-step cloning."""
    names = {"act": "ACT", "bc": "single-step cloning"}
    columns: Columns = {
        "50 demonstrations": "{demonstrator}",
        "policy": lambda r: names[r["policy"]],
        **SEEDS,
        "training": seconds,
        "standing still": lambda r: f"{100 * r['frozen']:.0f} %",
    }
    return table_of(result["summary"], columns)


def openarm(result: Row) -> str:
    """State policies of two arms."""
    rows = sorted(result["summary"], key=lambda r: (r["task"], best_first(r)))
    labels: Columns = {"task": "{task}", "50 demonstrations": "{demonstrator}"}
    return table_of(rows, labels | SEEDS)


def sides(result: Row) -> list[Row]:
    """What `act demo` compared."""
    names = {"act": "ACT", "single_step": "single-step cloning"}
    return [{"name": name} | result[key] for key, name in names.items()]


def demo(result: Row) -> str:
    """What `act demo` said."""
    columns = {"": "{name}", **RATE, "training": "{train_seconds:.0f} s"}
    stages = ", ".join(f"{k} {v:.0f}" for k, v in result["stages"].items())
    note = f"\n\n{result['demonstrations']} human-like demonstrations. Seconds of each "
    note += f"stage: {stages}."
    if gpu := result.get("gpu"):
        note += f" Trained on one {gpu}. {result['note']}"
    return table_of(sides(result), columns) + note


def single_step(result: Row) -> str:
    """The search for the best baseline."""
    rows = sorted(result["summary"], key=best_first)
    label: Columns = {"single-step variant": "{variant}"}
    return table_of(rows, label | SEEDS | {"training": seconds})


def chunk_size(result: Row) -> str:
    """Success against k."""
    groups: dict[tuple, Row] = {}
    for r in result["summary"]:
        key = (r["demonstrator"], r["cvae"], r["k"])
        groups.setdefault(key, dict(r))[r["execution"]] = success(r)
    columns: Columns = {
        "demonstrations": "{demonstrator}",
        "CVAE": lambda r: "yes" if r["cvae"] else "no",
        "k": "{k}",
        "half the chunk": "{half}",
        "whole chunk": lambda r: r.get("whole", ""),
        "ensemble, m = 0.01": lambda r: r.get("ensemble", ""),
        "n": "{n}",
    }
    return table_of(groups.values(), columns)


def ablation(result: Row) -> str:
    """Chunks, CVAE and ensembling, one taken away or added at a time."""
    names = {
        "act": "ACT: k = 50, half of each executed",
        "no_chunks": "no chunks (k = 1)",
        "no_cvae": "no CVAE",
        "ensemble": "an ensemble, m = 0.01, in place of half chunks",
    }

    def points(row: Row) -> str:
        if "difference" not in row:
            return ""
        d, low, high = (
            100 * x for x in (row["difference"], *row["difference_interval"])
        )
        return f"{d:+.0f} [{low:+.0f}, {high:+.0f}]"

    columns: Columns = {
        "50 demonstrations": "{demonstrator}",
        "": lambda r: names[r["row"]],
        **SEEDS,
        "points against ACT": points,
        "p": lambda r: f"{r['p_value']:.1g}" if "p_value" in r else "",
    }
    return (
        table_of(result["summary"], columns)
        + "\n\nChunks carry the success. At k = 50 the CVAE adds nothing that these "
        f"rollouts show (other k: C5), and the ensemble nothing to the best chunk. "
        f"{result['note']}"
    )


def grid(result: Row) -> str:
    """Chunk size against executed length."""
    lengths = sorted({row["h"] for row in result["summary"]})
    cells = {(r["noise"], r["k"], r["h"]): success(r) for r in result["summary"]}
    sizes = list(dict.fromkeys((r["noise"], r["k"]) for r in result["summary"]))
    rows = [
        [f"{noise:g}", str(k), *(cells.get((noise, k, h), "") for h in lengths)]
        for noise, k in sizes
    ]
    head = ["noise on the inputs", "k", *(f"h = {h}" for h in lengths)]
    n = result["summary"][0]["n"]
    return table(head, rows) + (
        f"\n\nPolicies without a CVAE after human-like demonstrations, h actions of "
        f"each chunk executed; n = {n} a cell. Down a column only what was learned "
        "differs, along a row only what is executed."
    )


def vision(result: Row) -> str:
    """Vision policies against the number of demonstrations."""
    rows = result["summary"]
    label: Columns = {"demonstrations": "{demonstrations}"}
    threads = (
        "\n\nTraining with 200 had two threads to itself; with fewer demonstrations it "
        "had one, beside another training, so those times say little."
    )
    note = threads * (len(rows) > 1)
    return table_of(rows, label | SEEDS | {"training": seconds}) + note


def simulation(result: Row) -> str:
    """What the simulator costs."""
    names = {
        "control_step_ms": "control step, ms",
        "two_images_96x128_ms": "two images 96 × 128, ms",
        "one_image_480x640_ms": "one image 480 × 640, ms",
        "ten_scenes_throughput_over_one": "ten scenes over one, ×",
    }
    rows = [{"name": name} | result[key] for key, name in names.items()]
    columns: Columns = {
        "": "{name}",
        "median": "{median:.2f}",
        "range": "{min:.2f}-{max:.2f}",
    }
    experts = "; ".join(
        f"{name} {r['successes']} of {r['n']} fresh scenes"
        for name, r in result["experts"].items()
    )
    rates = result["demonstrations_per_second"]
    return (
        table_of(rows, columns)
        + f"\n\nDemonstrators: {experts}. Demonstrations a second: "
        f"{rates['no_images']:.1f} without images, {rates['both']:.2f} with both "
        "cameras."
    )


def ensembling(result: Row) -> str:
    """What temporal ensembling costs."""
    columns: Columns = {
        "scenes": "{scenes}",
        "actions": "{actions}",
        "ms a tick, k = 100": "{ms_per_tick_median:.3f}",
        "range": "{ms_per_tick_min:.3f}-{ms_per_tick_max:.3f}",
    }
    return table_of(result["results"], columns)


def checkpoints(result: Row) -> str:
    """The committed policies."""
    columns = {
        "checkpoint": "`{checkpoint}`",
        "demonstrations": "{demonstrations}",
        "training": "{train_seconds:.0f} s",
        **RATE,
    }
    return table_of(result["checkpoints"], columns)


def arm_loop(result: Row) -> str:
    """How steady the control loop of a virtual arm is."""
    names = {
        "policy_30_hz": "30 Hz, two cameras, vision policy",
        "bare_100_hz": "100 Hz, no cameras",
        "policy_50_hz": "50 Hz, state policy",
        "bare_200_hz": "200 Hz, no policy",
    }
    rows = [{"name": name} | result[k] for k, name in names.items() if k in result]
    columns: Columns = {
        "loop": "{name}",
        "ticks": "{ticks:.0f}",
        "Hz": "{rate_hz:.2f}",
        "off by, ms (99 %)": "{jitter_ms_p99:.2f}",
        "at worst, ms": "{jitter_ms_max:.1f}",
        "late ticks": lambda r: f"{100 * r['late_share']:.3f} %",
    }
    note = "\n\nA tick is late when it lasts more than one and a half periods."
    if free := result.get("unpaced"):
        note += (
            f" Unpaced, {free['rate_hz']:.0f} exchanges a second (n = {free['n']}), "
            "each with a goal for every motor and every motor's answer. At 50 Hz the "
            "policy predicts whenever it is asked; what is sent is a slow sway."
        )
    return table_of(rows, columns) + note


def arm_success(result: Row) -> str:
    """The same policy on the same scenes, in simulation and through the bus."""
    bus = result["bus"]
    rows = [
        {"name": "in simulation"} | result["simulation"],
        {"name": "through the bus"} | bus,
    ]
    kinds = [f"{k} {v}" for k, v in bus["interventions"].items()]
    note = f"\n\nInterventions in all {bus['n']} trials: {', '.join(kinds) or 'none'}."
    return table_of(rows, {"": "{name}", **RATE}) + note


def arm_teleop(result: Row) -> str:
    """The guide's way, command by command."""
    commands = "\n".join(f"    {line}" for line in result["commands"])
    d, training = result["demonstrations"], result["training"]
    return (
        f"{commands}\n\nSuccess {success(result['deploy'])} (n = "
        f"{result['deploy']['n']}). {d['n']} demonstrations by a simulated hand at a "
        f"virtual leader: {d['ticks']} ticks, {d['late_ticks']} of them late. Training "
        f"on {training['episodes']} of them (the others are held out) took "
        f"{training['seconds']:.0f} s, beside other work."
    )


def arm_faults(result: Row, safe: str) -> str:
    """What broke, in which phase, and what was said; `safe` is what counts as that."""

    def word(rows: list[Row]) -> str:
        safe = sum(r["safe"] for r in rows)
        if safe < len(rows):
            return f"**{safe} of {len(rows)}**"
        fell = any(r.get("dropped_by_the_fault") for r in rows)
        return f"{safe} of {len(rows)}" + (", but dropped" if fell else "")

    def by_hand(phase: str, rows: list[Row]) -> str:
        return phase + (" (by hand)" if rows[0].get("by_hand") else "")

    cells: dict[tuple[str, str], list[Row]] = {}
    for r in result["table"]:
        cells.setdefault((r["fault"], r["phase"]), []).append(r)
    # Phases, then faults, of which the same is said share a line; numbers aside.
    phases: dict[tuple, list[str]] = {}
    example: dict[tuple, str] = {}
    for (fault, phase), found in cells.items():
        said: dict[str, str] = {}
        for r in found:
            words = r["said"] or r["landing"] or "nothing: it did no harm"
            said.setdefault(re.sub(r"[\d.]+", "#", words), words)
        what = (word(found), *said)
        phases.setdefault((fault, what), []).append(by_hand(phase, found))
        example.setdefault(what, "; or ".join(said.values()))
    faults: dict[tuple, list[str]] = {}
    for (fault, what), some in phases.items():
        faults.setdefault((", ".join(some), what), []).append(fault)
    rows = [
        ["; ".join(some), where, what[0], example[what]]
        for (where, what), some in faults.items()
    ]
    head = ["fault", "phase", "safe, each", "what was said (numbers vary)"]
    note = (
        f"\n\n{result['crashes']} crashes, {result['unsafe']} unsafe, "
        f"{result['lost_episodes']} lost episodes in {result['n']} trials. *Safe*: "
        f"seen from beside the arm, {safe}"
    )
    return table(head, rows) + note


def guard_bodies(result: Row) -> str:
    """How deep arms came into things under random wishes, by the physics' contacts."""
    columns: Columns = {
        "arm": "{name}",
        "wishes, each held": "{how}",
        "n": "{n}",
        "deepest": "{deepest_mm:.1f} mm",
        "strongest on the table": "{strongest_on_table_N:.0f} N",
        "over 15 N, longest": "{longest_over_15_N_s:.2f} s",
        "limits, CPU time a tick": "{allow_ms:.1f} ms",
    }
    held = {"arms": "up to 8 ticks", "leaning": "up to 1 s, and far outside the ranges"}
    rows = [
        {"name": name.replace("_", " "), "how": how} | row
        for kind, how in held.items()
        for name, row in result[kind].items()
    ]
    note = (
        "A stiff arm that meets a stiff table is stopped within a millisecond or two, "
        "hence the large forces; what counts is how long they last. The limits are "
        "asked once a tick; at 200 Hz one lasts 5 ms."
    )
    if any(row["over_15_N_for_0.3_s"] for row in rows):
        note += f" More than {LASTING:g} s is a fault that is not mended yet."
    return f"{table_of(rows, columns)}\n\n{note}"


APART = f"no body came more than {1000 * DEEP:g} mm into another one"
SO100_SAFE = (
    "every joint but the jaw stayed in its range and near its speed limit, no goal was "
    f"set far from its joint, {APART} or into the table, none pressed on the table "
    f"with over {HARD:g} N for over {LASTING:g} s, and the arm did not fall. By hand, "
    "no servo had torque."
)
OPENARM_SAFE = (
    "every joint stayed in its range and near its speed limit, every wrist in its "
    f"box, {APART}, nothing pulled as hard as against an obstacle, no arm fell, and in "
    "the end no motor that could be reached had torque. Motors which the fault itself "
    "left without torque are judged until it came, and so is then what bodies touch: "
    "*dropped* arms fell because nothing held them any more, and no program can help "
    "that. By hand, no motor pulled, and no wrong zero was kept without a word."
)


SECTIONS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "state": ("State policies (joints and cube pose)", state),
    "single_step": ("The best single-step baseline", single_step),
    "chunk_size": ("Success against chunk size", chunk_size),
    "claims/ablation": ("Chunks, CVAE and ensembling, one at a time", ablation),
    "claims/grid": ("Chunk size against executed length", grid),
    "claims/C23": ("Predictions that take time", late_chunks),
    "claims/C29": ("Heads on ACT's memory", heads),
    "diagnosis": ("`act diagnose`: faults that it names", diagnosis),
    "vision": ("Vision policies (two cameras, no cube pose)", vision),
    "demo": ("act demo", demo),
    "demo_vision": ("act demo with cameras", demo),
    "checkpoints": ("The checkpoints in `data/checkpoints`", checkpoints),
    "simulation": ("The simulator", simulation),
    "loader": ("Loading training samples", performance.loader_table),
    "ensembling": ("Temporal ensembling", ensembling),
    "so100_loop": ("Virtual SO-100: how steady the loop is", arm_loop),
    "so100_success": ("Virtual SO-100: success through the bus", arm_success),
    "so100_late": ("Virtual SO-100: predictions of 250 ms", arm_late),
    "so100_teleop": ("Virtual SO-100: from teleoperation to deployment", arm_teleop),
    "so100_faults": (
        "Virtual SO-100: what breaks",
        partial(arm_faults, safe=SO100_SAFE),
    ),
    "guard_bodies": ("What random wishes do to virtual arms", guard_bodies),
    "guard_bodies_so100_pair": ("What they do to two SO-100", guard_bodies),
    "openarm": ("Two OpenArms: state policies", openarm),
    "demo_openarm_handover": ("Two OpenArms: act demo", demo),
    "demo_openarm_handover_vision": (
        "Two OpenArms: act demo with cameras, on a GPU",
        demo,
    ),
    "openarm_bus_success": ("Virtual OpenArm: success through the buses", arm_success),
    "openarm_late": ("Virtual OpenArm: predictions of 250 ms", arm_late),
    "openarm_bus_guide": (
        "Virtual OpenArm: from teleoperation to deployment",
        arm_teleop,
    ),
    "openarm_loop": ("Virtual OpenArm: how steady the loop is", arm_loop),
    "openarm_faults": (
        "Virtual OpenArm: what breaks",
        partial(arm_faults, safe=OPENARM_SAFE),
    ),
}


def said_of(result: Row) -> str:
    """The line below a table of docs/results.md."""
    seeds = ", ".join(map(str, result.get("seeds", ())))
    return f"\n\nFrom {source(result)}{f'; seeds {seeds}' if seeds else ''}.\n"


def results_page() -> str:
    """docs/results.md."""
    parts = [
        "# Results\n",
        "Generated from `data/results/*.json` by `python -m benchmarks.report`; do not "
        "edit.\n",
        claims.board(),
        "Every claim is about action chunking, as the ACT paper, articles or guides "
        "make it; the verdict is\nabout the simulated tasks of this course.\n",
        "## How to read the numbers\n",
        "Success is strict (the cube rests in the bin, the jaw open, for 10 ticks; two "
        "arms' tasks say\ntheirs in `act_minimal/sim`), on scenes that no "
        "demonstration started from. Brackets are 95 % Wilson\nintervals over all "
        "seeds together; a seed decides demonstrations, weights and scenes. In the\n"
        f"section on claims n is {claims.USUAL_N} where nothing else is said. "
        "Words are explained in the\n[glossary](glossary.md).\n\n"
        "*From* names the command that made the numbers, to be typed after "
        f"`{RUN.strip()}`.\nWhere nothing else is said it ran on {USUAL}.\n",
        "## Claims about ACT, tested\n",
        claims.sections(),
    ]
    for name, (title, render) in SECTIONS.items():
        result = load(name)
        parts.append(f"## {title}\n")
        parts.append(
            render(result) + said_of(result) if result else "Not measured yet.\n"
        )
    return "\n".join(parts)


def readme(text: str) -> str:
    """README.md with today's numbers."""
    if demo := load("demo"):
        columns: Columns = {
            "": "{name}",
            "success": lambda r: f"{100 * r['rate']:.0f} %",
            "n": "{n}",
            "95 % interval": lambda r: "{:.0f}-{:.0f} %".format(
                *(100 * x for x in r["interval"])
            ),
            "training": "{train_seconds:.0f} s",
        }
        note = (
            f"\n\n(`act demo --seed {demo['seed']}`: {demo['seconds']:.0f} s in all on "
            f"{demo['machine']['cores']} cores)"
        )
        text = with_block(text, "demo", table_of(sides(demo), columns) + note)
    if seen := load("demo_vision"):
        said = ", ".join(f"{r['name']} {success(r)}" for r in sides(seen))
        text = with_block(
            text,
            "demo_vision",
            f"{said} (n = {seen['act']['n']} each), in {seen['seconds'] / 60:.0f} "
            f"minutes on {seen['machine']['cores']} cores.",
        )
    blocks = []
    for name in ("state", "vision"):
        if result := load(name):
            title, render = SECTIONS[name]
            blocks.append(f"**{title}**\n\n{render(result)}{made_by(result)}")
    return with_block(text, "numbers", "\n".join(blocks) or "Being measured.")


def main() -> None:
    """Write all pages."""
    write_text(ROOT / "docs" / "results.md", results_page())
    path = ROOT / "README.md"
    write_text(path, readme(path.read_text(encoding="utf-8")))
    performance.main()


if __name__ == "__main__":
    main()
