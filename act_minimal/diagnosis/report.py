"""A diagnosis as text for a terminal, and as one HTML file with figures."""

import base64
import html
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.inspect import PALETTE
from ..support.console import make_console
from ..support.files import write_text
from ..support.results import Result
from .evidence import Evidence
from .findings import CAUSES, Diagnosis, Finding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .trials import Trials

SHOWN = 3  # episodes whose actions are drawn


def as_text(found: Diagnosis, width: int = 88) -> str:
    """The report as plain text."""
    out = io.StringIO()
    console = make_console(file=out, width=width, highlight=False, markup=False)
    console.print(f"{found.policy} with {found.data}")
    for name, success in found.rates.items():
        low, high = success["interval"]
        console.print(
            f"{name}: {success['successes']} of {success['n']} succeed "
            f"(95 % interval {100 * low:.0f}-{100 * high:.0f} %)"
        )
    for one in found.findings:
        console.print()
        console.print(f"{one.level.upper():8}{CAUSES[one.cause]} ({one.sure})")
        console.print(f"        found:  {one.measured}", soft_wrap=True)
        console.print(f"        usual:  {one.usual}", soft_wrap=True)
        console.print(f"        next:   {one.step}", soft_wrap=True)
    console.print()
    if found.excluded:
        listed = ", ".join(sorted({x.cause for x in found.excluded}))
        console.print(f"Looked for and not found: {listed}")
    reasons: dict[str, list[str]] = {}
    for one in found.skipped:
        reasons.setdefault(one.why, []).append(one.cause)
    for why, causes in reasons.items():
        console.print(f"Not looked for, as {why}: {', '.join(sorted(set(causes)))}")
    console.print(f"In short: {found.verdict}")
    return out.getvalue()


def conclude(
    page: Path, found: Diagnosis, e: Evidence, trials: "Trials | None"
) -> Result:
    """Write the page; what a command says, and 1 if something is wrong or it fails."""
    write_html(page, found, e, trials)
    wrong = found.fails or any(x.level == "wrong" for x in found.findings)
    return Result(
        found.to_json() | {"html": str(page)},
        f"{as_text(found)}\nwith figures: {page}",
        code=1 if wrong else 0,
    )


def write_html(
    path: Path, found: Diagnosis, e: Evidence, trials: "Trials | None" = None
) -> None:
    """The report as one HTML file, its figures in it."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>Diagnosis of {html.escape(found.policy)}</title>",
        f"<style>{STYLE}</style>",
        f"<h1>Diagnosis of {html.escape(found.policy)}</h1>",
        f"<p>Demonstrations: {html.escape(found.data)}</p>",
        f"<p class=verdict>{html.escape(found.verdict)}</p>",
    ]
    if found.rates:
        rows = [
            (name, f"{r['successes']} of {r['n']}", _percent(r["interval"]))
            for name, r in found.rates.items()
        ]
        parts.append(_table(("", "succeed", "95 % interval"), rows))
    parts.append("<h2>Findings</h2>")
    parts += map(_finding, found.findings)
    if not found.findings:
        parts.append("<p>None.</p>")
    parts.append("<h2>Figures</h2>")
    for title, figure in figures(e, trials):
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=110)
        data = base64.b64encode(out.getvalue()).decode()
        alt = html.escape(title)
        parts.append(
            f"<figure><img alt='{alt}' src='data:image/png;base64,{data}'>"
            f"<figcaption>{alt}</figcaption></figure>"
        )
    parts.append("<h2>Looked for and not found</h2>")
    passed: dict[str, list[str]] = {}
    for one in found.excluded:
        if one.measured not in passed.setdefault(CAUSES[one.cause], []):
            passed[CAUSES[one.cause]].append(one.measured)
    rows = [(cause, "; ".join(said)) for cause, said in passed.items()]
    parts.append(_table(("not found", "measured"), rows))
    parts.append("<h2>Not looked for</h2>")
    skipped = [(CAUSES[x.cause], x.why) for x in found.skipped]
    parts.append(_table(("whether", "why"), skipped))
    write_text(path, "\n".join(parts) + "\n")


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.verdict { font-size: 1.15rem; font-weight: 600; }
section { border-left: .4rem solid #bbb; padding: .1rem 1rem; margin: 1rem 0; }
section.wrong { border-color: #D55E00; } section.suspect { border-color: #E69F00; }
table { border-collapse: collapse; } td, th { text-align: left; vertical-align: top;
       padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; }
img { max-width: 100%; } figure { margin: 1rem 0; } figcaption { color: #555; }
dt { font-weight: 600; } dd { margin: 0 0 .3rem 0; }
"""


def _finding(one: Finding) -> str:
    said = {
        "found": one.measured,
        "usual": one.usual,
        "how sure": one.sure,
        "next": one.step,
    }
    rows = "".join(f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in said.items())
    title = html.escape(CAUSES[one.cause])
    title = f"<h3>{one.level}: {title}</h3>"
    return f"<section class={one.level}>{title}<dl>{rows}</dl></section>"


def _percent(interval: list[float]) -> str:
    low, high = interval
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "<p>Nothing.</p>"
    cells = "".join(f"<th>{html.escape(x)}</th>" for x in head)
    lines = [f"<tr>{cells}</tr>"]
    for row in rows:
        lines.append(
            "<tr>" + "".join(f"<td>{html.escape(x)}</td>" for x in row) + "</tr>"
        )
    return f"<table>{''.join(lines)}</table>"


def figures(e: Evidence, trials: "Trials | None") -> Iterator[tuple[str, "Figure"]]:
    """Captions and figures of a report."""
    if np.isfinite(e.predicted).all():
        caption = "Actions of demonstrations (grey), and chunks predicted from them"
        yield caption, chunks(e)
        yield "Error by joint and by place in the chunk (1: the mean action)", errors(e)
    if len(e.log) > 1:
        yield "Loss of training, and on held-out episodes", losses(e)
    if trials and trials.all:
        yield (
            "First states of trials, beside those of the demonstrations",
            first(e, trials),
        )
    if trials and (map_ := places(e, trials)):
        yield "Where demonstrations began, and where trials succeeded and failed", map_
    pictures = pictures_of(e, trials)
    if pictures:
        yield "What the cameras saw at the start: demonstrations, and trials", pictures


def chunks(e: Evidence) -> "Figure":
    """Demonstrated actions of some episodes, and chunks over them."""
    from matplotlib.figure import Figure

    names, size = e.names, e.demos.action.shape[1]
    moving = np.sort(np.argsort(-e.demos.action.std(0))[: min(4, size)])
    numbers = np.unique(e.frames.episode)[:SHOWN]
    figure = Figure(figsize=(9, 2.2 * len(moving)), layout="constrained")
    axes = figure.subplots(len(moving), len(numbers), squeeze=False, sharey="row")
    for column, number in enumerate(numbers):
        start, length = e.demos.starts[number], e.demos.lengths[number]
        shown = e.demos.action[start : start + length]
        rows = np.flatnonzero(e.frames.episode == number)
        for row, j in enumerate(moving):
            ax = axes[row, column]
            ax.plot(shown[:, j], color="#999", lw=1)
            for i in rows:
                at = e.frames.tick[i] + np.arange(e.policy.chunk_size)
                ax.plot(at, e.predicted[i, :, j], color=PALETTE[3], lw=0.8)
            if column == 0:
                ax.set_ylabel(names[j], fontsize=8)
            if row == 0:
                ax.set_title(e.demos.names[number], fontsize=8)
    return figure


def errors(e: Evidence) -> "Figure":
    """Error by joint, and by index in the chunk."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    groups = {"trained on": e.trained_on}
    if not e.trained_on.all():
        groups["held out"] = ~e.trained_on
    for i, (name, rows) in enumerate(groups.items()):
        some = e.errors[rows]
        joint = np.nanmean(some, axis=(0, 1))
        at = np.arange(len(joint)) + 0.4 * i
        left.bar(at, joint, 0.4, color=PALETTE[i], label=name)
        right.plot(np.nanmean(some, axis=(0, 2)), color=PALETTE[i], label=name)
    left.set_xticks(range(len(e.names)), e.names, rotation=60, fontsize=7)
    left.set_ylabel("error")
    right.set_xlabel("place in the chunk, ticks")
    right.set_ylim(bottom=0)
    right.legend(fontsize=8)
    return figure


def losses(e: Evidence) -> "Figure":
    """The curves of log.jsonl."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    ax = figure.subplots()
    for i, key in enumerate(("l1", "val_l1")):
        rows = [(r["step"], r[key]) for r in e.log if key in r]
        if rows:
            ax.plot(*zip(*rows, strict=True), color=PALETTE[i], lw=1, label=key)
    ax.set_yscale("log")
    ax.set_xlabel("updates")
    ax.legend(fontsize=8)
    return figure


def first(e: Evidence, trials: "Trials") -> "Figure":
    """Where trials begin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    ax = figure.subplots()
    here = e.demos.qpos[e.demos.starts]
    now = np.array([x.qpos[0] for x in trials.all])
    for i, (name, q) in enumerate({"demonstrations": here, "trials": now}.items()):
        at = np.tile(np.arange(q.shape[1]) + 0.2 * i, (len(q), 1))
        ax.plot(at.ravel(), q.ravel(), "ox"[i], ms=5, color=PALETTE[i], label=name)
    ax.set_xticks(range(len(e.names)), e.names, rotation=60, fontsize=7)
    ax.set_ylabel("rad")
    ax.legend(fontsize=8)
    return figure


def places(e: Evidence, trials: "Trials") -> "Figure | None":
    """The first two numbers of the objects' state at the start, mostly x and y."""
    from matplotlib.figure import Figure

    known = [(x.start, x.success) for x in trials.new if x.start is not None]
    if e.demos.env_state is None or e.demos.env_state.shape[1] < 2 or not known:
        return None
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    ax = figure.subplots()
    there = e.demos.env_state[e.demos.starts]
    ax.plot(there[:, 0], there[:, 1], ".", color="#999", label="demonstrations")
    for ok, mark, colour in ((True, "o", PALETTE[2]), (False, "x", PALETTE[3])):
        some = np.array([start[:2] for start, success in known if success is ok])
        if len(some):
            words = "succeeded" if ok else "failed"
            ax.plot(some[:, 0], some[:, 1], mark, color=colour, label=words)
    ax.set_xlabel("env_state[0]")
    ax.set_ylabel("env_state[1]")
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    return figure


def pictures_of(e: Evidence, trials: "Trials | None") -> "Figure | None":
    """First images of demonstrations, and of trials."""
    from matplotlib.figure import Figure

    names = e.policy.cameras
    if not names:
        return None
    seen = [x for x in (trials.all if trials else []) if set(names) <= x.images.keys()]
    rows = 2 if seen else 1
    figure = Figure(figsize=(3 * len(names), 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, len(names), squeeze=False)
    for i, camera in enumerate(names):
        axes[0, i].imshow(e.frames.observation[f"images/{camera}"][0])
        axes[0, i].set_title(f"{camera}, demonstration", fontsize=8)
        if seen:
            axes[1, i].imshow(seen[0].images[camera][0])
            axes[1, i].set_title(f"{camera}, trial", fontsize=8)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure
