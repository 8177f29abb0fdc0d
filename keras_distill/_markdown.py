"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]], right: Iterable[int] = ()
) -> str:
    """A table in Markdown.

    Args:
        header: Titles of the columns.
        rows: The cells of each row. A "|" in a cell is escaped.
        right: Indices of the columns that are aligned to the right.

    Returns:
        The table, without a line break at its end.
    """
    right = set(right)
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
        for row in [header, rule, *rows]
    )
