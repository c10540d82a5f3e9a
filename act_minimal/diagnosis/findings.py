"""What a check can say: a finding, that all is well, or why it could not look."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Level = Literal["wrong", "suspect", "note"]
LEVELS: tuple[Level, ...] = get_args(Level)
Sure = Literal["certain", "likely", "possible"]

# What can be found, and what it is called.
CAUSES = {
    "not_finite": "the policy answers with NaN or infinity",
    "constant_output": "the policy answers the same, whatever it sees",
    "joint_order": "joints come in another order",
    "joint_sign": "a joint is counted the other way round",
    "units": "angles come in another unit",
    "camera_swap": "two cameras are exchanged",
    "image_input": "images reach the network in another form than in training",
    "input_differs": "the network gets something else than in training",
    "statistics": "the policy's statistics are not those of these data",
    "std_floor": "a joint that hardly moves is divided by almost nothing",
    "copies_state": "the policy repeats where the arm is, and hardly moves it",
    "camera_unused": "a camera makes no difference",
    "state_only": "the policy follows its joints and hardly looks",
    "z_drawn": "the same observation gives different answers",
    "leans_on_z": "the decoder needs a latent that it does not get at run time",
    "too_few_updates": "training ended too early",
    "learning_rate": "a learning rate is out of proportion",
    "overfitted": "it fits what it was trained on and little else",
    "memorised": "it knows its demonstrations' scenes alone",
    "uncovered": "it fails where no demonstration began",
    "few_scenes": "the demonstrations begin in few different scenes",
    "chunk_length": "a chunk is about as long as an episode",
    "failed_episodes": "some demonstrations failed or end too early",
    "two_styles": "the demonstrations go two ways",
    "joint_timing": "a joint's commands are not in time with the others",
    "data_faults": "the recordings have a fault",
    "mixed_cameras": "a camera was moved or lit otherwise between demonstrations",
    "rate": "the arm is driven at another rate",
    "late_observation": "observations come late",
    "calibration": "the arm's zero, or the scene, is not that of the recording",
    "start_pose": "trials begin in another pose than the demonstrations",
    "light": "the light is not that of the demonstrations",
    "camera_moved": "a camera does not look as it did",
    "ensemble_weights": "the ensemble weighs its predictions in an unusual way",
    "stands_still": "the arm stands still",
    "jerk": "the arm moves less smoothly than its teachers",
    "phase": "where trials fail",
}


@dataclass(frozen=True)
class Finding:
    """Something is not as it should be."""

    cause: str
    """A key of `CAUSES`."""
    level: Level
    """wrong: explains a failure by itself; suspect: may; note: worth knowing."""
    rank: float
    """Orders the findings of one level: what is measured directly comes before what
    follows from it."""
    measured: str
    usual: str
    """The threshold, and why it lies there."""
    sure: Sure
    step: str
    """What to do next: a command, or a sentence."""

    def __post_init__(self) -> None:
        assert self.cause in CAUSES, self.cause
        object.__setattr__(self, "rank", float(self.rank))  # JSON takes no NumPy


@dataclass(frozen=True)
class Passed:
    """A check looked and found nothing; so this cause is excluded, as far as it saw."""

    cause: str
    measured: str


@dataclass(frozen=True)
class Skipped:
    """A check could not look."""

    cause: str
    why: str


Outcome = Finding | Passed | Skipped


@dataclass
class Diagnosis:
    """All that was found of one policy."""

    policy: str
    data: str
    outcomes: list[Outcome] = field(default_factory=list)
    rates: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Success of replays and rollouts, by what was run."""
    seconds: float = 0.0

    @property
    def findings(self) -> list[Finding]:
        """The most serious first; of one cause, the most serious alone."""
        found = [x for x in self.outcomes if isinstance(x, Finding)]
        found.sort(key=lambda x: (LEVELS.index(x.level), -x.rank))
        seen: set[str] = set()
        first = []
        for one in found:
            if one.cause not in seen:
                first.append(one)
            seen.add(one.cause)
        return first

    @property
    def excluded(self) -> list[Passed]:
        """What was looked for and not found by any check."""
        found = {x.cause for x in self.findings}
        return [
            x for x in self.outcomes if isinstance(x, Passed) and x.cause not in found
        ]

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be looked for, by any check."""
        seen = {x.cause for x in self.outcomes if not isinstance(x, Skipped)}
        return [
            x for x in self.outcomes if isinstance(x, Skipped) and x.cause not in seen
        ]

    @property
    def fails(self) -> bool | None:
        """Whether it fails more often than `FAILS_ABOVE`; None if it was not tried."""
        new = self.rates.get("new scenes") or self.rates.get("trials")
        return None if new is None else new["interval"][1] < 1 - FAILS_ABOVE

    @property
    def verdict(self) -> str:
        """The report in a sentence."""
        causes = [x for x in self.findings if x.level != "note"]
        if causes:
            second = f"; or {CAUSES[causes[1].cause]}" if causes[1:] else ""
            first = causes[0]
            word = "most likely" if first.level == "wrong" else "perhaps"
            return f"{word}: {CAUSES[first.cause]}{second}"
        if self.fails:
            return (
                "it fails, and no cause that is known here was found. Looked for, and "
                "not found, were: "
                + ", ".join(sorted({x.cause for x in self.excluded})).replace("_", " ")
            )
        if self.fails is None:
            return "nothing was found; no trial was judged, so it may fail all the same"
        new = self.rates.get("new scenes") or self.rates["trials"]
        return f"nothing was found; it succeeds in {new['successes']} of {new['n']}"

    def named(self, *causes: str) -> list[str]:
        """Those of these causes that were found, as wrong."""
        return [
            x.cause for x in self.findings if x.level == "wrong" and x.cause in causes
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "policy": self.policy,
            "data": self.data,
            "verdict": self.verdict,
            "findings": [asdict(x) for x in self.findings],
            "excluded": [asdict(x) for x in self.excluded],
            "not_looked_for": [asdict(x) for x in self.skipped],
            "rates": self.rates,
            "seconds": self.seconds,
        }


FAILS_ABOVE = 0.1  # of its trials
