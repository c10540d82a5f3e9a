"""Errors that are the user's to mend."""


class UserError(Exception):
    """Bad input: one sentence that says what was found, where, and what was expected.

    The command line prints the sentence and exits with `exit_code`; a notebook shows
    it as is.
    """

    exit_code = 1


class SettingError(UserError, ValueError):
    """A setting that cannot be meant: names it, what was found and what is expected.

    Exits as for a flag that does not exist. It is a ValueError too, which is what
    Python programs expect of a bad argument.
    """

    exit_code = 2
