"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A question to end a message with; empty where no name is close."""
    by_lower_case = {known.lower(): known for known in names}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=4, cutoff=0.5)
    close = [by_lower_case[key] for key in matches]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
