"""The one exception for what a user can mend: the message says what is wrong, where, and the way out."""


class SummkitError(Exception):
    """Wrong input, missing file or network, unknown name. The command line prints it without a traceback."""


def check_known(kind: str, name: str, known) -> None:
    """Raise SummkitError, listing what is known, where `name` is not among `known`."""
    if name not in known:
        raise SummkitError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")
