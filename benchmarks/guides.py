"""What came of a guide's commands, from demonstrations to a measured success."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.checkpoint import find_checkpoint
from act_minimal.episodes import list_episodes, load_episode
from act_minimal.evaluation import wilson


def outcome(run: Path, demos: Path, deployed: Path, seed: int) -> dict[str, Any]:
    """The part of a result file that every arm's guide has.

    Args:
        run: folder of the training.
        demos: folder of the demonstrations, recorded through a bus.
        deployed: folder of the tally.
        seed: of its scenes.
    """
    card = json.loads((find_checkpoint(run) / "card.json").read_text(encoding="utf-8"))
    tally = json.loads((deployed / "tally.json").read_text(encoding="utf-8"))
    episodes = [load_episode(p) for p in list_episodes(demos)]
    late = [float(e.attributes["late_ticks"]) for e in episodes]
    p99 = [float(e.attributes["period_ms_p99"]) for e in episodes]
    return {
        "training": {"episodes": card["episodes"], "seconds": card["seconds"]},
        "demonstrations": {
            "n": len(episodes),
            "ticks": sum(len(e) for e in episodes),
            "late_ticks": int(sum(late)),
            "period_ms_p99": float(np.median(p99)),
        },
        "deploy": {
            "success": tally["successes"] / tally["n"],
            "interval": list(wilson(tally["successes"], tally["n"])),
            "n": tally["n"],
            "seed": seed,
        },
    }
