"""Errors that the person at the keyboard can act on."""


class UserError(Exception):
    """A mistake the user can fix: what came, what was wanted, what to change, in one line.

    Command lines print the message and exit with status 2, without a traceback.
    """


class IntegrityError(UserError):
    """A bundle whose files are not the ones that were written and tested."""
