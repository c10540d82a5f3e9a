"""What goes wrong on a bus, of any arm."""

from collections.abc import Sequence

from act_minimal.support.errors import UserError


class BusError(UserError):
    """The bus or a motor did not do what it was asked; `silent` ids did not answer."""

    def __init__(self, message: str, silent: Sequence[int] = ()):
        super().__init__(message)
        self.silent = tuple(silent)
