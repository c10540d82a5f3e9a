"""The one beside the arm, at the keys: says when it begins, and how it went."""

from typing import Any, ClassVar

from act_minimal.errors import UserError


class Judging:
    """Lays the objects, watches a policy, and says whether it succeeded."""

    def __init__(self, keys: Any, stop: Any):
        self.keys, self.stop = keys, stop

    def prepare(self, trial: int) -> None:
        """Wait for Enter."""
        print(f"trial {trial + 1}: lay the objects, stand back, press Enter")
        self._key("\n\r")

    def done(self) -> bool:
        """Space stops the arm, s ends the trial."""
        key = self.keys.pressed()
        if key == " ":
            self.stop.raise_flag("space bar")
        return key == "s"

    def verdict(self) -> bool:
        """Ask y or n."""
        print("did it succeed? y or n")
        return self._key("yn") == "y"

    def _key(self, wanted: str) -> str:
        while True:
            self.stop.check()
            key = self.keys.pressed(0.05)
            if key and key in wanted:
                return key
            if not self.keys.here:
                raise UserError(
                    "this is no terminal, so nobody can be asked; for a virtual arm "
                    "give --scenes"
                )


class Demonstrating:
    """Shows the task: says when an episode begins, ends, and is kept."""

    WORDS: ClassVar = {
        "\n": "keep",
        "\r": "keep",
        "x": "discard",
        "z": "redo",
        " ": "quit",
    }

    def __init__(self, keys: Any, stop: Any, source: Any):
        self.keys, self.stop, self.source = keys, stop, source
        self.said = "keep"
        self.number = -1  # a real table has no scene's number

    def prepare(self, number: int) -> None:
        """Wait for Enter."""
        print(f"episode {number}: lay the objects, press Enter")
        while self.keys.pressed(0.05) not in ("\n", "\r"):
            self.stop.check()

    def over(self, tick: int) -> bool:
        """Whether a key ended the episode."""
        key = self.source.other()
        if key in self.WORDS:
            self.said = self.WORDS[key]
        return key in self.WORDS

    def verdict(self) -> Any:
        """What that key said of it."""
        return self.said
