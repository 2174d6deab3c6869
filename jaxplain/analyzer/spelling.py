"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A question to end a message with; empty where no name is close."""
    spelled = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), spelled, n=4, cutoff=0.5)
    close = [spelled[key] for key in found]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
