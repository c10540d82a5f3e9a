"""Errors that are the user's to mend."""


class UserError(Exception):
    """Bad input: one sentence that says what was found, where, and what was expected.

    The command line prints the sentence and exits with 1; a notebook shows it as is.
    """
