"""C12: chunks against pauses after each of the expert's moves: none, 0.5 s, 0 to 1 s.

While the arm rests, nothing that a policy sees says for how long. One perceptron with
three chunk sizes, executed by halves.
"""

from pathlib import Path

import numpy as np

from act_minimal.dataset import Demonstrations
from act_minimal.evaluation import still

from ..rollouts import Row
from . import trial as t
from .claim import Claim, Training, outcome
from .trial import Trial

EXPERTS = {"scripted": "none", "paused": "fixed", "hesitant": "random"}
CHUNKS = (1, 10, 50)


def trials(settings: Training) -> list[Trial]:
    """Every kind of pause and chunk with every seed."""
    training = {"action_target": "delta", "state_noise": 0.02, "lr": 2e-3}
    return [
        Trial(
            f"c12_{expert}_k{k}_{seed}",
            seed,
            {"pauses": pauses, "k": k},
            expert=expert,
            steps=settings.steps,
            n=settings.n,
            settings=training | {"chunk_size": k},
        )
        for expert, pauses in EXPERTS.items()
        for k in CHUNKS
        for seed in settings.seeds
    ]


def frozen_demonstrations(trial: Trial, runs: Path) -> float:
    """Share of ticks in which the expert stands still, by the rollouts' measure."""
    demos = Demonstrations.load(t.demonstrations(trial, runs))
    shares = [
        still(demos.qpos[start : start + length]).mean()
        for start, length in zip(demos.starts, demos.lengths, strict=True)
    ]
    return float(np.mean(shares))


def measure(settings: Training) -> Row:
    """Policies, and for how long the demonstrations themselves rest."""
    todo = trials(settings)
    rows = t.run_trials(todo, settings)
    shown = []
    for pauses in EXPERTS.values():
        some = [x for x in todo if x.labels == {"pauses": pauses, "k": CHUNKS[0]}]
        frozen = [frozen_demonstrations(x, settings.runs) for x in some]
        row = {"pauses": pauses, "frozen": float(np.mean(frozen))}
        shown.append(row | {"n": 50 * len(some)})
    about = {"steps": settings.steps, "demonstrations": shown}
    return about | outcome(settings, rows, ["pauses", "k"])


C12 = Claim(
    "C12",
    "Too small a chunk hesitates and gets stuck at pauses; a chunk carries a pause "
    "through.",
    "Zhao et al., in words; no number is given.",
    measure,
    t.SIZES,
    ours="Scripted demonstrations without pauses: k = 1: {{pauses=none k=1}}, k = 50: "
    "{{pauses=none k=50}}. With a pause of 0 to 1 s after each move: k = 1: "
    "{{pauses=random k=1}}, standing still {{pauses=random k=1 -> frozen percent}} of "
    "the time, k = 10: {{pauses=random k=10}}, k = 50: {{pauses=random k=50}}.",
    verdict="held",
    line="Pauses alone turn a single-step policy that mostly succeeds into one that "
    "never does; k = 50 keeps {{pauses=random k=50 -> success percent}}.",
)
