"""What goes to the terminal: plain characters and no colour where it asks for that.

Windows writes files and pipes in cp1252, other systems may have Latin-1 or ASCII: a
character that is not in there is replaced, because a table with "x" for "×" is of more
use than a stack trace.
"""

import codecs
import os
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN = {
    **{"×": "x", "→": "->", "←": "<-", "…": "...", "·": ".", "•": "*", "−": "-"},
    **{"–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"'},
    **{"│": "|", "┃": "|", "║": "|", "▌": "|", "─": "-", "━": "-", "═": "-"},
    **{"°": "deg", "µ": "u", "μ": "u", "±": "+-", "≤": "<=", "≥": ">=", "≈": "~"},
}  # fmt: skip


def plain(text: str) -> str:
    """The text in ASCII: "3 × 4 °C" is "3 x 4 degC"; "?" for what has no likeness."""
    return "".join(_plain(character) for character in text)


def _plain(character: str) -> str:
    if character.isascii():
        return character
    if character in _PLAIN:
        return _PLAIN[character]
    if "─" <= character <= "╿":  # corners and crossings of frames
        return "+"
    alike = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return alike or "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


def prepare_output() -> None:
    """Make standard output and error take any text, and obey NO_COLOR.

    https://no-color.org: set to anything but nothing, it means no colour.
    """
    codecs.register_error("act_minimal.plain", _replace)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="act_minimal.plain")
    if tyro := sys.modules.get("tyro"):  # it looks at the terminal alone
        tyro._experimental_options["ansi_codes"] = not _no_color()


def make_console(**settings: Any) -> "Console":
    """Rich's console, which knows the width and whether colours are wanted."""
    from rich.console import Console

    if _no_color():
        settings |= {"color_system": None}  # rich itself would keep bold and dim
    return Console(**settings)


def _no_color() -> bool:
    return bool(os.environ.get("NO_COLOR"))
