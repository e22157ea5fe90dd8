"""Tables of text in the ways in which programs and people write them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.case import Case, CommandOutcome
from vaeflow.errors import VaeflowError

SEPARATORS = [";", ";", "\t", " ", "|", ", ", "; ", "  "]
FORMATS = ["{:.17g}", "{:.3f}", "{:.2e}", "{:+.4f}", "{:.5E}", "{:.0f}.", "{:8.3f}"]
MISSING = ["", "NA", "NaN", "nan", "NULL", "-", "?", "inf", "#N/A"]
HEADERS = ["a", "e", "i", "n", "f", "nan", "inf", "NA", "E", "x", "y", "1st", "Größe", "価格", "a b", "x_1", "u.v",
           "naïve", "infinity", "-", "_"]  # fmt: skip
ODD = ["separator", "separator", "decimal comma", "quotes", "line end", "encoding", "index", "index", "fault", "fault",
       "line's end", "blank line", "comment", "ending"]  # fmt: skip
"""In what a table may differ from a plain one: in up to three of these."""


@dataclass(frozen=True)
class Style:
    """How a table is written; by default, plainly.

    Args:
        separator: between cells.
        comma: whether decimals have a comma.
        quoting: of cells, a constant of the module csv.
        line_end: between rows.
        encoding: of the file.
        after_row: what stands at the end of each row.
        blank_line: the place of an empty line, if there is one.
        comment: whether the header is a comment, as numpy.savetxt writes it.
    """

    separator: str = ","
    comma: bool = False
    quoting: Any = csv.QUOTE_MINIMAL
    line_end: str = "\n"
    encoding: str = "utf-8"
    after_row: str = ""
    blank_line: int | None = None
    comment: bool = False


@st.composite
def texts(draw: Any) -> Case:
    """A table of known numbers, which differs from a plain one in up to three ways."""
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    odd = draw(st.sets(st.sampled_from(ODD), max_size=3))
    style = draw(_style(odd))
    has_cells_with_blanks = style.separator.strip() != ""
    rows, columns = draw(st.integers(12, 30)), draw(st.integers(2, 5))
    shown = draw(st.sampled_from(FORMATS))
    cells = [[shown.format(v).strip() for v in row] for row in generator.normal(0, 30, (rows, columns))]
    matrix: Any = [[float(cell) for cell in row] for row in cells]
    header: list[str] = []
    if draw(st.booleans()):
        names = st.sampled_from([name for name in HEADERS if has_cells_with_blanks or " " not in name])
        header = draw(st.lists(names, min_size=columns, max_size=columns, unique=True))
    also: Any = None
    if "index" in odd:
        numbers = draw(st.sampled_from([np.arange(rows), 1 + np.arange(rows), generator.permutation(rows)])).tolist()
        name = draw(st.sampled_from(["", "", "Unnamed: 0", "id"] if has_cells_with_blanks else ["id"]))
        cells = [[str(number), *row] for number, row in zip(numbers, cells, strict=True)]
        with_index = [[float(number), *row] for number, row in zip(numbers, matrix, strict=True)]
        if header and name == "id":
            matrix = with_index
        elif not header:  # it may be a column like others, or not
            also = with_index
        header = [name, *header] if header else []
    fault = ""
    if "fault" in odd:
        fault = draw(st.sampled_from(["missing", "missing", "word", "words", "one cell less", "one cell more"]))
        cells = _spoilt(cells, fault, draw(st.integers(0, rows - 1)), draw(_missing(has_cells_with_blanks)))
        matrix = also = None
    suffix = draw(st.sampled_from([".CSV", ".tsv", ".txt"])) if "ending" in odd else ".csv"
    facts = {"matrix": _frozen(matrix), "also": _frozen(also)}
    files = {f"table{suffix}": _written(cells, header, style)}
    return Case((), files, f"{style}, header {header}, {sorted(odd)}, {fault}", facts, _check)


@st.composite
def _style(draw: Any, odd: set[str]) -> Style:
    def drawn(name: str, values: list[Any], plain: Any) -> Any:
        return draw(st.sampled_from(values)) if name in odd else plain

    comma = "decimal comma" in odd
    separator = drawn("separator", SEPARATORS, ";" if comma else ",")
    return Style(
        separator=";" if comma and separator == ", " else separator,
        comma=comma,
        quoting=drawn("quotes", [csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC], csv.QUOTE_MINIMAL),
        line_end=drawn("line end", ["\r\n", "\r"], "\n"),
        encoding=drawn("encoding", ["utf-8-sig", "utf-16", "latin-1"], "utf-8"),
        after_row=drawn("line's end", [" ", separator], ""),
        blank_line=drawn("blank line", [0, 1, 5, -1], None),
        comment="comment" in odd,
    )


def _missing(may_be_empty: bool) -> st.SearchStrategy[str]:
    return st.sampled_from(MISSING if may_be_empty else MISSING[1:])


def _spoilt(cells: list[list[str]], fault: str, row: int, missing: str) -> list[list[str]]:
    """The cells with one fault, for which a table of numbers has to be refused."""
    if fault == "words":
        return [[*line[:-1], "red"] for line in cells]
    last = {"missing": [missing], "word": ["red"], "one cell less": [], "one cell more": [cells[row][-1], "1.5"]}[fault]
    return [[*line[:-1], *last] if number == row else line for number, line in enumerate(cells)]


def _written(cells: list[list[str]], header: list[str], style: Style) -> bytes:
    if style.comma:
        cells = [[cell.replace(".", ",") for cell in row] for row in cells]
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\x1f", quoting=style.quoting, lineterminator="\n")
    if header:
        writer.writerow(header)
    writer.writerows(cells)
    lines = [line + style.after_row for line in buffer.getvalue().removesuffix("\n").split("\n")]
    if header and style.comment:
        lines[0] = "# " + lines[0]
    if style.blank_line is not None:
        lines.insert(style.blank_line, "")
    text = style.line_end.join([*lines, ""])
    return text.replace("\x1f", style.separator).encode(style.encoding, errors="replace")


def _frozen(matrix: Any) -> Any:
    return None if matrix is None else tuple(sorted(map(tuple, matrix)))


def _check(case: Case, outcomes: list[CommandOutcome], folder: Path) -> str | None:
    """What is wrong with what was read of the table; nothing if it was refused in one sentence."""
    from vaeflow.data import Arrays

    (name,) = case.files
    try:
        data = Arrays(str(folder / name))
        data.setup("")
    except VaeflowError:
        return None
    except Exception as error:
        return f"vaeflow.data.Arrays({name!r}) raises {type(error).__name__}: {error}"
    read = _frozen([row for x, _ in data.splits.values() for row in x.flatten(1).double().tolist()])
    if read in (case.facts["matrix"], case.facts["also"]) and read is not None:
        return None
    expected = case.facts["matrix"]
    if expected is None:
        return f"vaeflow.data.Arrays({name!r}) reads what cannot be read: {len(read)} rows such as {read[0]}"
    return (
        f"vaeflow.data.Arrays({name!r}) reads {len(read)} rows of {len(read[0])} such as {read[0]}, expected "
        f"{len(expected)} of {len(expected[0])} such as {expected[0]}"
    )
