"""The one exception that a person's input can cause; the command line prints it as one line and exits with 2."""


class UserError(Exception):
    """Something the person at the keyboard can mend: what was wrong, where, and what to do, in one line."""
