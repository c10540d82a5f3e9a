"""The paper's ablation table, re-run here: chunks, CVAE, ensembling.

    uv run python -m benchmarks.claims.ablation

Nothing is trained: the rows come from data/results/chunk_size.json (`python -m
benchmarks.rollouts chunk_size`), in which every policy had the same updates.
"""

import json
import time
from pathlib import Path
from typing import Any

from act_minimal.course.field import Pairs, difference
from act_minimal.errors import UserError
from benchmarks.results import RESULTS, write

K = 50
DEMONSTRATORS = ("human", "scripted")
ROWS = {
    "act": {"k": K, "cvae": True, "execution": "half"},
    "no_chunks": {"k": 1, "cvae": True, "execution": "half"},
    "no_cvae": {"k": K, "cvae": False, "execution": "half"},
    "ensemble": {"k": K, "cvae": True, "execution": "ensemble"},
}
PAPER = {
    "no_chunks": "k = 1 reaches 1 %, k = 100 44 % (mean of four settings)",
    "no_cvae": "human data: 35.3 % with, 2 % without; scripted about unchanged",
    "ensemble": "3.3 points more with ensembling",
}


def load(path: Path) -> dict[str, Any]:
    """The result file of the chunk sizes.

    Raises:
        UserError: it has not been made.
    """
    if not path.exists():
        raise UserError(
            f"{path} is missing; make it with: uv run python -m benchmarks.rollouts "
            "chunk_size"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def same(row: dict[str, Any], labels: dict[str, Any]) -> bool:
    """Whether a row has these labels."""
    return all(row[key] == value for key, value in labels.items())


def paired(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> Pairs:
    """Compare runs scene by scene: seed s of both met the same scenes."""
    both = only_a = only_b = neither = 0
    for one in a:
        [other] = [row for row in b if row["seed"] == one["seed"]]
        if one["n"] != other["n"]:
            raise UserError(f"seed {one['seed']}: {one['n']} and {other['n']} rollouts")
        fa, fb = set(one["failed_scenes"]), set(other["failed_scenes"])
        neither += len(fa & fb)
        only_a, only_b = only_a + len(fb - fa), only_b + len(fa - fb)
        both += one["n"] - len(fa | fb)
    return Pairs(both, only_a, only_b, neither)


def table(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each ablation and demonstrator, with its difference from ACT."""
    rows = []
    for demonstrator in DEMONSTRATORS:
        who = {"demonstrator": demonstrator}
        act = [r for r in found["runs"] if same(r, who | ROWS["act"])]
        for name, labels in ROWS.items():
            runs = [r for r in found["runs"] if same(r, who | labels)]
            [one] = [r for r in found["summary"] if same(r, who | labels)]
            row = {"row": name, **who, **labels, "paper": PAPER.get(name, "")}
            row |= {k: one[k] for k in ("success", "interval", "n", "seeds")}
            row |= {k: one[k] for k in ("each_seed", "jerk", "frozen", "steps")}
            if name != "act":
                pairs = paired(runs, act)
                counts = [
                    (sum(r["successes"] for r in x), one["n"]) for x in (runs, act)
                ]
                d, low, high = difference(*counts)
                row |= {
                    "difference": d,
                    "difference_interval": [low, high],
                    "only_this": pairs.only_a,
                    "only_act": pairs.only_b,
                    "p_value": pairs.p_value,
                }
            rows.append(row)
    return rows


def main(path: Path | None = None) -> None:
    """Write data/results/claims/ablation.json."""
    start = time.perf_counter()
    found = load(path or RESULTS / "chunk_size.json")
    write(
        "claims/ablation",
        time.perf_counter() - start,
        {
            "claim": "Chunking, the CVAE and temporal ensembling each add to success.",
            "published": "; ".join(f"{k}: {v}" for k, v in PAPER.items()),
            "task": found["task"],
            "seeds": found["seeds"],
            "made_from": found["command"],
            "note": "Intervals of differences are Newcombe's; p values are exact "
            "McNemar tests over scenes that both policies met, seeds pooled: they "
            "count rollouts, not training seeds.",
            "summary": table(found),
        },
    )


if __name__ == "__main__":
    main()
