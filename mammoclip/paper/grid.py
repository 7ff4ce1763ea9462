"""A table of text, and its Markdown and LaTeX forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": "$-$",
}
_LATEX_SPECIAL = re.compile("|".join(re.escape(character) for character in _LATEX))


@dataclass(frozen=True)
class Grid:
    """Rows of text under one header row; the first ``num_labels`` cells of a row say what it is about.

    Neighbouring rows whose first ``num_group`` cells are equal belong together.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_labels: int
    num_group: int

    def groups(self) -> list[list[Sequence[str]]]:
        """Return the rows, those that belong together in one list."""
        groups: list[list[Sequence[str]]] = []
        for row in self.rows:
            if not groups or list(groups[-1][0][: self.num_group]) != list(row[: self.num_group]):
                groups.append([])
            groups[-1].append(row)
        return groups


def to_markdown(grid: Grid) -> str:
    """Return a pipe table; labels are left-aligned, the rest right-aligned."""
    rule = ["---" if column < grid.num_labels else "---:" for column in range(len(grid.header))]
    lines = [_escape_markdown_row(grid.header), rule, *(_escape_markdown_row(row) for row in grid.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(grid: Grid) -> str:
    """Return a ``tabular`` for the package booktabs, to be put into a ``table`` by ``\\input``."""
    columns = "l" * grid.num_labels + "r" * (len(grid.header) - grid.num_labels)
    groups = ["".join(_latex_row(row) for row in group) for group in grid.groups()]
    addlinespace = "\\addlinespace\n"
    return (
        "% needs \\usepackage{booktabs}\n"
        f"\\begin{{tabular}}{{{columns}}}\n"
        "\\toprule\n"
        f"{_latex_row(grid.header)}"
        "\\midrule\n"
        f"{addlinespace.join(groups)}"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def escape_latex(text: str) -> str:
    """Escape the characters that LaTeX gives a meaning.

    >>> escape_latex("shuffled_reports & 5 %")
    'shuffled\\\\_reports \\\\& 5 \\\\%'
    """
    return _LATEX_SPECIAL.sub(lambda match: _LATEX[match.group()], text)


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(escape_latex(cell) for cell in cells)} \\\\\n"


def _escape_markdown_row(cells: Sequence[str]) -> list[str]:
    return [cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells]
