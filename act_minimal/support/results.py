"""What a command has to say: text for a person, or JSON for a machine."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

Json = Annotated[bool, tyro.conf.arg(help="Print JSON, for machines.")]


@dataclass(frozen=True)
class Result:
    """What a command found or made, and the exit code that goes with it."""

    content: Any
    """What --json prints."""
    text: str = ""
    """What is printed otherwise; nothing if empty."""
    code: int = 0
    then: Callable[[], object] | None = None
    """What comes after the printing, because it takes long or may fail."""

    def show(self, json: bool) -> int:
        """Print it; returns the exit code."""
        if json:
            print_json(self.content)
        elif self.text:
            print(self.text)
        if self.then:
            self.then()
        return self.code


def print_json(content: Any) -> None:
    """The one thing on standard output when --json is given; ASCII."""
    print(json.dumps(content, indent=2))
