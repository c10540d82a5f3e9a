"""The questions that the lessons ask before they measure."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Question:
    """A question with a number between `low` and `high`, or with `choices`.

    A number is measured by the entry of a result file; a choice is answered in words,
    which may hold numbers as prose does: `{{file list key=value}}`.
    """

    text: str
    result: str = ""
    path: str = "summary"
    labels: dict[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    answer: str = ""
    low: int = 0
    high: int = 100
    unit: str = "%"

    @property
    def middle(self) -> int:
        """Where the slider starts."""
        return (self.low + self.high) // 2


def _each(sign: str, values: tuple[str, ...], number: str) -> str:
    """Each value and its number, where <> stands for the value."""
    return "; ".join(f"{sign} = {x}: {number.replace('<>', x)}" for x in values) + "."


def _runs(field: str) -> str:
    """What each of three runs reached, in claim C19."""
    rows = (
        f"{{{{claims/C19 choosing seed={i} -> {field} percent}}}}" for i in range(3)
    )
    return ", ".join(rows)


QUESTIONS: dict[str, Question] = {
    "F1.cost": Question(
        "A cube rides past on a belt, and every prediction takes 8 ticks, 267 ms. In "
        "how many of 100 scenes does it come into the bin, if the arm stands still "
        "while its policy predicts?",
        "claims/C23",
        labels={
            "world": "belt",
            "way": "arm waits",
            "delay": 8,
            "horizon": 25,
            "spread": 1.0,
        },
    ),
    "F2.l1": Question(
        "Half of 100 teachers pass the post on its left, half on its right, and what "
        "they see is the same. A small ACT with the L1 loss and without z learns from "
        "them, and executes half of each chunk. In how many of 100 walks does it pass?",
        "claims/C29",
        labels={"task": "post", "head": "l1"},
    ),
    "F3.first": Question(
        "A policy's loss is low, and it fails on its arm. You may make one "
        "measurement first. Which leaves the policy out altogether?",
        choices=(
            "the validation loss",
            "rollouts on new scenes",
            "a demonstration, sent to the arm again",
        ),
        answer="A demonstration that is sent again needs no policy: where it fails, "
        "data and arm disagree, and no training will help.",
    ),
    "F3.D": Question(
        "Patient D: it answers well to its demonstrations, begins where they begin, "
        "follows as they do, and its replays fail. What is wrong?",
        choices=(
            "too few updates",
            "joints in another order",
            "a joint's zero",
            "the rate",
        ),
        answer="A joint's zero: calibration off by 5 degrees. With it "
        "{{diagnosis success_with fault='calibration off by 5 degrees'}}.",
    ),
    "F3.B": Question(
        "Patient B: it answers well to its demonstrations, and they succeed when they "
        "are sent again. What is wrong?",
        choices=(
            "the way in which chunks are executed",
            "a camera",
            "the latent",
            "units",
        ),
        answer="Its ensemble weighs the newest prediction most, with m = 0.3. With it "
        "{{diagnosis success_with fault='ensembling reversed'}}.",
    ),
    "00.act": Question(
        "ACT, trained for less than two minutes on 50 human-like demonstrations: in "
        "how many of 100 fresh scenes does it put the cube into the bin?",
        "state",
        labels={"policy": "act", "demonstrator": "human"},
    ),
    "00.single_step": Question(
        "Single-step cloning, trained for two minutes on the same 50 demonstrations "
        "with the best of the recipes that we compared: in how many of 100?",
        "state",
        labels={"policy": "bc", "demonstrator": "human"},
    ),
    "04.helps": Question(
        "The same policy, executed by halves of its chunks or by a temporal ensemble "
        "with m = 0.01. Which puts more cubes into the bin?",
        choices=("the ensemble", "half chunks", "no difference that 300 rollouts show"),
        answer="Policies with k = 50 trained on human-like demonstrations, three "
        "seeds: half chunks {{chunk_size summary demonstrator=human k=50 cvae=true "
        "execution=half}}, the ensemble {{chunk_size summary demonstrator=human k=50 "
        "cvae=true execution=ensemble}}.",
    ),
    "02.best": Question(
        "The same network, data and number of updates; chunks of 1, 5, 10, 25, 50 or "
        "100 actions at 30 Hz, half of each executed. Which puts most cubes into the "
        "bin?",
        choices=("1", "5", "10", "25", "50", "100"),
        answer="On human-like demonstrations, three seeds, half of each chunk "
        "executed. "
        + _each(
            "k",
            ("1", "5", "10", "25", "50", "100"),
            "{{chunk_size summary demonstrator=human k=<> cvae=false execution=half -> "
            "success percent}}",
        ),
    ),
    "02.push": Question(
        "The cube is pushed by 3 to 5 cm while the arm reaches for it. The policy "
        "predicts chunks of 50 actions. How many of each should it execute, so that it "
        "succeeds most often?",
        choices=("1", "5", "10", "25", "50"),
        answer="With the push, three policies, 100 scenes each. "
        + _each(
            "h",
            ("1", "5", "10", "25", "50"),
            "{{claims/C14 summary execute=<> pushed=true -> success percent}}",
        ),
    ),
    "03.middle": Question(
        "Half of the demonstrations pass a post on the left, half on the right. A "
        "network without z is trained on them with the L1 loss. Where does it pass?",
        choices=(
            "left or right, never in between",
            "in between",
            "left and right by turns",
        ),
        answer="The figure above shows it: with equal shares the L1 loss is "
        "flat between the two ways, so the network may stop anywhere between them; "
        "with unequal shares it follows the larger one.",
    ),
    "03.alive": Question(
        "ACT with the package's kl_weight of 1: how much does z tell the decoder about "
        "the demonstrated chunk, after training?",
        choices=("nothing, less than 0.1 nats", "about 1 nat", "5 nats or more"),
        answer="kl_weight 1, three seeds: {{claims/C06 summary kl_weight=1.0 "
        "reduction=sum z=zero -> kl 4}} nats.",
    ),
    "07.seventeen": Question(
        "A policy succeeds in 17 of 20 rollouts: 85 %. Which true success rates does "
        "that rule out, at 95 % confidence?",
        choices=(
            "below 80 %, and above 90 %",
            "below 64 %, and above 95 %",
            "below 40 %, and none above",
        ),
        answer="Wilson's interval for 17 of 20 reaches from 64 to 95 %. For 170 of 200 "
        "it would be 79 to 89 %: ten times the rollouts, a third of the width.",
    ),
    "07.camera": Question(
        "The vision policy that comes with the course was trained with one camera "
        "pose. Somebody knocks the upper camera 5 cm aside. How often does the policy "
        "still put the cube into the bin?",
        choices=("in more than 90 %", "in 50 to 90 %", "in less than 50 %"),
        answer="Where it was: {{claims/C21 summary policy=committed axis=none "
        "shift_cm=0}}. 5 cm to the right: {{claims/C21 summary policy=committed axis=x "
        "shift_cm=5}}. 2 cm to the right: {{claims/C21 summary policy=committed axis=x "
        "shift_cm=2}}.",
    ),
    "05.layers": Question(
        "ACT with one decoder layer; with seven, of which the first one's output is "
        "used (as the original code does); with seven that are all used. Same data, "
        "same number of updates. Which puts most cubes into the bin?",
        choices=(
            "one layer",
            "seven, the first used",
            "seven, all used",
            "no difference that 300 rollouts show",
        ),
        answer="Three seeds: one layer {{claims/C09 summary layers=1 output=last}}; "
        "seven, the first used {{claims/C09 summary layers=7 output=first}}; seven, "
        "all used {{claims/C09 summary layers=7 output=last}}.",
    ),
    "06.loss": Question(
        "A run leaves a checkpoint every few hundred steps. Which one should go on the "
        "robot?",
        choices=(
            "the one with the lowest training loss",
            "the one with the lowest validation loss",
            "the one that did best in rollouts",
            "the last one",
        ),
        answer="The one that did best in rollouts: only they measure success. Here it "
        "mattered little. Success in three runs, best in rollouts (on the same "
        "scenes): "
        + _runs("best_success")
        + "; lowest validation loss: "
        + _runs("lowest_val_success")
        + "; last: "
        + _runs("last_success")
        + ". Rank correlation of success over all checkpoints: with the training loss "
        "{{claims/C19 correlation.all -> train 2}}, with the validation loss at z = 0 "
        "{{claims/C19 correlation.all -> val 2}}; among the later half alone "
        "{{claims/C19 correlation.late -> train 2}} and "
        "{{claims/C19 correlation.late -> val 2}}.",
    ),
    "08.torque": Question(
        "An arm was carried by hand from where it last stood to somewhere else, its "
        "torque off. Now torque is switched on. Nothing was sent. What does it do?",
        choices=(
            "it holds where it is",
            "it goes slowly to where it last stood",
            "it runs to where it last stood, as fast as its motors can",
        ),
        answer="It runs: the servo kept its last goal, and torque on means go there, "
        "now. So every goal is set to the measured position before torque comes on.",
    ),
    "08.bus": Question(
        "The vision policy, through the servos' own bytes, with free-running cameras, "
        "30 Hz by the clock and all limits in between: in how many of 100 fresh scenes "
        "does it succeed?",
        "so100_success",
        "bus",
    ),
    "09.two": Question(
        "Two policies side by side instead of the one, same demonstrations, same "
        "training: each moves its own arm and sees that arm's joints and the bar. In "
        "how many of 100 fresh scenes does the handover succeed?",
        "claims/C28",
        labels={"policies": "two", "sees": "own"},
    ),
    "09.fall": Question(
        "Two OpenArms hold their hands up, 37 cm over the table. Somebody cuts the "
        "power. What do the arms do?",
        choices=(
            "they stay: gears and motors brake them",
            "they sink, for a second or two",
            "they fall, as fast as a stone would",
        ),
        answer="They fall: their gears turn easily from outside, too, which is what "
        "makes them gentle to touch. A third of a metre takes about a quarter of a "
        "second.",
    ),
    "00.growth": Question(
        "A clone makes a mistake in one of a thousand steps, and does not know the way "
        "back. How does the time that it spends lost grow with the horizon T, while T "
        "is a few hundred steps?",
        choices=("it does not", "like T", "like T²", "exponentially"),
        answer="Like T², as the figure shows: the longer it walks, the likelier it "
        "has been lost, and the longer it has been so. With a way back: like T.",
    ),
    "01.clean": Question(
        "A clone of the scripted expert, one action at a time, from 50 demonstrations. "
        "On the expert's states its targets are off by about a degree. In how many of "
        "100 fresh scenes does it put the cube into the bin?",
        choices=("more than 90", "50 to 90", "less than 50"),
        answer="Above is one seed, live. Three seeds: {{claims/C01 summary "
        "expert=scripted variant=absolute}}.",
    ),
    "01.rescue": Question(
        "Human-like demonstrations, single steps; each policy that is tested learned "
        "from 50 episodes, with equally many updates. Which change helps most?",
        choices=(
            "targets relative to the joints (delta)",
            "three observations instead of one",
            "delta targets, and noise on the inputs",
            "disturbed demonstrations (DART)",
            "corrections of its own rollouts (DAgger)",
        ),
        answer="Three seeds, against {{claims/C01 summary expert=human "
        "variant=absolute -> success percent}} without any: delta {{claims/C01 summary "
        "expert=human variant=delta -> success percent}}, three observations "
        "{{claims/C01 summary expert=human variant=history-3 -> success percent}}, "
        "delta and input noise {{claims/C01 summary expert=human variant=delta-noise "
        "-> success percent}}, DART {{claims/C01 summary expert=human variant=dart -> "
        "success percent}}, DAgger {{claims/C01 summary expert=human variant=dagger -> "
        "success percent}}.",
    ),
}
