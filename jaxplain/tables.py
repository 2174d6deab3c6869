"""Tables as text and as HTML."""

from collections.abc import Sequence
from html import escape

Cells = Sequence[str]


def text(header: Cells, rows: Sequence[Cells], right: Sequence[int] = ()) -> str:
    """A table in columns.

    Args:
        header: the titles.
        rows: the cells.
        right: columns of numbers, aligned to the right.
    """
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = []
    for row in table:
        columns = enumerate(zip(row, widths, strict=True))
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in columns]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def html(header: Cells, rows: Sequence[Cells], caption: str, notes: Sequence[str] = ()) -> str:
    """The same as an HTML table, with notes below."""

    def line(cells: Cells, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    head = line(header, "th")
    return f"<table><caption>{escape(caption)}</caption>{head}{body}</table>{below}"
