"""The claims' part of docs/results.md: the board, and a section for each claim."""

import re

from course.toolkit.results import ResultError, fill

from ..tables import load, source, table
from .claim import Claim
from .registry import CLAIMS

USUAL_N = 300


def heading(claim: Claim) -> str:
    """The title of a claim's section."""
    return f"{claim.number}. {claim.text}"


def anchor(title: str) -> str:
    """The link to a section, as code hosts make it of its title."""
    return "#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def short(text: str) -> str:
    """Prose with its numbers filled in; rates as `91 % [87, 94]`, n where unusual."""

    def rate(found: re.Match) -> str:
        low, high, n = found.groups()
        return f" [{low}, {high}" + (f"; n = {n}]" if int(n) != USUAL_N else "]")

    return re.sub(r" \(95 % interval (\d+)-(\d+) %, n = (\d+)\)", rate, fill(text))


def measured(claim: Claim) -> bool:
    """Whether the claim's result is committed; its own, if it has a measurement."""
    return any(load(name) for name in claim.results[: 1 if claim.measure else None])


def board() -> str:
    """One row a claim: number with a link, verdict, one line."""
    rows = [
        [
            f"[{claim.number}]({anchor(heading(claim))})",
            claim.verdict,
            short(claim.numbers(claim.line)),
        ]
        for claim in CLAIMS
    ]
    return table(["claim", "verdict", "in one line"], rows) + "\n"


def extension(claim: Claim) -> str:
    """What an extension of the measurement found, or the command that will tell."""
    if claim.extension is None:
        return ""
    try:
        return " " + short(claim.numbers(claim.extension.ours))
    except ResultError:
        return f" Declared and not run yet: {claim.extension.what}."


def section(claim: Claim) -> str:
    """What was published, what was found, the verdict, and the command."""
    lines = [f"### {heading(claim)}", f"*Published.* {claim.published}"]
    if measured(claim):
        found = short(claim.numbers(claim.ours)) + extension(claim)
        lines.append(f"*Measured here.* {found}")
        said = f"{short(claim.numbers(claim.line))} {claim.why}".strip()
        lines.append(f"**{claim.verdict.capitalize()}.** {said}")
    else:
        said = short(claim.numbers(claim.line))
        lines.append(f"**{claim.verdict.capitalize()}.** {said}")
    sources = [source(made) for name in claim.results if (made := load(name))]
    if sources:
        lines.append(f"From {', '.join(sources)}.")
    elif claim.measure:
        lines.append(f"To be made by `{claim.command}`.")
    return "\n\n".join(lines)


def sections() -> str:
    """All claims, one after the other."""
    return "\n\n".join(map(section, CLAIMS)) + "\n"
