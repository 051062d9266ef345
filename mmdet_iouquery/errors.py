"""The one error that this project raises for input that a person can mend."""


class InputError(ValueError):
    """Bad input: the message names what is wrong, where, and the remedy.

    The command lines in ``tools/`` print the message alone and leave with status 2; used as a library it is an ordinary
    ``ValueError``.
    """
