"""The one beside the arm, at the keys: says when it begins, and how it went.

While they are asked the arm holds with its torque on, so it is looked after meanwhile
(`SafeRobot.hold`), and the space bar stops it as at any other time.
"""

from typing import Any, ClassVar

from act_minimal.support.errors import UserError

from .safe_robot import SafeRobot

ENTER = "\n\r"


def ask(robot: SafeRobot, keys: Any, wanted: str) -> str:
    """The first of the wanted keys that is pressed; the arm holds until then.

    Raises:
        Stop: the space bar if it is not wanted, the emergency stop, or a servo is
            unwell.
        UserError: there is no terminal.
    """
    while keys.here:
        key = keys.pressed()
        if key and key in wanted:
            return key
        if key == " ":
            robot.stop.raise_flag("space bar")
        robot.hold()
    raise UserError(
        "this is no terminal, so nobody can be asked; for a virtual arm give --scenes"
    )


class Judging:
    """Lays the objects, watches a policy, and says whether it succeeded."""

    def __init__(self, keys: Any, robot: SafeRobot):
        self.keys, self.robot = keys, robot

    def prepare(self, trial: int) -> None:
        print(f"trial {trial + 1}: lay the objects, stand back, press Enter")
        ask(self.robot, self.keys, ENTER)

    def done(self) -> bool:
        """Space stops the arm, s ends the trial."""
        key = self.keys.pressed()
        if key == " ":
            self.robot.stop.raise_flag("space bar")
        return key == "s"

    def verdict(self) -> bool:
        print("did it succeed? y or n")
        return ask(self.robot, self.keys, "yn") == "y"


class Demonstrating:
    """Shows the task: says when an episode begins, ends, and is kept."""

    WORDS: ClassVar = {
        "\n": "keep",
        "\r": "keep",
        "x": "discard",
        "z": "redo",
        " ": "quit",
    }

    def __init__(self, keys: Any, robot: SafeRobot, source: Any):
        self.keys, self.robot, self.source = keys, robot, source
        self.said = "keep"
        self.number = -1  # a real table has no scene's number

    def prepare(self, number: int) -> bool:
        """Wait for Enter; False if the session is to end instead."""
        self.said = "keep"  # unless a key says otherwise before its time is over
        print(f"episode {number}: lay the objects, press Enter; space ends the session")
        return ask(self.robot, self.keys, ENTER + " ") != " "

    def over(self, tick: int) -> bool:
        key = self.source.other()
        if key in self.WORDS:
            self.said = self.WORDS[key]
        return key in self.WORDS

    def verdict(self) -> Any:
        return self.said
