"""Tables of numbers in text files: with or without a header, with any of the usual separators."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

import numpy as np

from vaeflow.errors import VaeflowError

TABLE_ENDINGS = (".csv", ".tsv", ".txt")
MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-")
"""How files mark missing values, in lower case: beside numbers these are no names of columns."""
FIRST_YEAR, LAST_YEAR = 1800, 2100
"""Successive numbers between these, above others, are the names of columns."""
UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)?)?")
"""What pandas and R write above row numbers, and what pandas calls such a column when it has read and written it."""


class NumericTable(NamedTuple):
    """What a text file holds.

    Args:
        values: ``(N, D)`` of float64.
        column_names: those of the header; None without one.
        notes: what was left out or assumed, one sentence each.
    """

    values: np.ndarray
    column_names: list[str] | None
    notes: list[str]


class _Layout(NamedTuple):
    """How a file is laid out.

    Args:
        separator: between cells; None for any number of blanks.
        names: of the columns; None without a header.
        num_columns: in each line of numbers.
        surplus: how many separators end each line of numbers with nothing behind them.
        starts_with_names: whether the first line holds the names, rather than a comment or nothing.
        first_is_quoted: whether the first column is quoted, and no other.
    """

    separator: str | None
    names: list[str] | None
    num_columns: int
    surplus: int
    starts_with_names: bool
    first_is_quoted: bool

    def describe(self, column: int) -> str:
        """A column as messages name it, counted from 1."""
        name = self.names[column] if self.names is not None else ""
        place = f"{column + 1} of {self.num_columns}"
        return f"column {name!r} ({place})" if name else f"column {place}"


@dataclass
class _Commas:
    """What is found out about points and commas in numbers while a file is read that commas do not separate.

    Args:
        signs: which of them there are.
        ambiguous: a number such as 8,217, which is 8.217 or 8217.
        are_decimal: whether a comma stands where none would part thousands, as in 0,217.
    """

    signs: set[str] = field(default_factory=set)
    ambiguous: str | None = None
    are_decimal: bool = False

    def look_at(self, line: str) -> None:
        """Take in a line of numbers."""
        self.signs.update(sign for sign in ",." if sign in line)
        if self.are_decimal or "," not in line:
            return
        for number in re.findall(r"[^\s;\"]*,[^\s;\"]*", line):
            if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", number):
                self.ambiguous = self.ambiguous or number
            else:
                self.are_decimal = True


def read_table(path: Path) -> NumericTable:
    """The numbers in a text file, separated by commas, semicolons, tabs or blanks.

    Decimal commas are read unless commas separate. The first line is a header if one of its cells is no number; a
    comment ``# u v w`` above the numbers is one if it names every column. A column without a name that numbers the
    rows, as pandas and R write it, is left out.

    Raises:
        VaeflowError: naming the line, and the column of a cell that is no number.
    """
    try:
        layout = _find_layout(path)
        commas = _Commas()
        lines = _number_lines(path, layout, commas)
        try:
            values = np.loadtxt(lines, delimiter=layout.separator, quotechar='"', comments=None, ndmin=2)
        except ValueError as error:
            _refuse_bad_cell(path, layout, str(error))
        if values.shape[1] != layout.num_columns or not np.isfinite(values).all():
            _refuse_bad_cell(path, layout, "its quotes do not match")
    except (csv.Error, UnicodeError) as error:
        raise VaeflowError(f"{path} cannot be read as a table ({error}).") from None
    if len(commas.signs) > 1:
        raise VaeflowError(f"{path} has numbers with decimal commas and others with points: use points for all.")
    if commas.ambiguous and not commas.are_decimal and layout.separator != ";":  # which stands for decimal commas
        raise VaeflowError(
            f"{path} holds {commas.ambiguous}, and each number with a comma has three digits behind it: write decimal "
            "points, or leave out what parts thousands."
        )
    names, notes = layout.names, []
    if layout.starts_with_names and any(_value(name, layout.separator) is not None for name in names or []):
        notes.append(f"the first line of {path} was taken as names of columns, though numbers are among them")
    row_numbers = [j for j in range(layout.num_columns) if _numbers_rows(path, layout, j, values[:, j])]
    notes += [f"{layout.describe(j)} in {path} has no name and numbers the rows: it was left out" for j in row_numbers]
    kept = [j for j in range(layout.num_columns) if j not in row_numbers]
    return NumericTable(values[:, kept] if row_numbers else values, names and [names[j] for j in kept], notes)


# ------------------------------------------------------------------------------------------------------------ lines


def _open(path: Path) -> TextIO:
    with path.open("rb") as file:
        is_utf_16 = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    return path.open(encoding="utf-16" if is_utf_16 else "utf-8-sig", errors="replace")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, without comments, Excel's ``sep=;``, blank lines and lines of nothing but separators."""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip(" \t;,\r\n") and not line.startswith(("#", "sep=")):
                yield number, line.rstrip("\r\n ")


def _number_lines(path: Path, layout: _Layout, commas: _Commas) -> Iterator[str]:
    """The lines of numbers, with decimal points; ``commas`` sees them as they were."""
    comma_is_decimal = layout.separator != ","
    ending = (layout.separator or "") * layout.surplus
    lines = _lines(path)
    if layout.starts_with_names:
        next(lines)
    for _, line in lines:
        if comma_is_decimal:
            commas.look_at(line)
            line = line.replace(",", ".")
        yield line.removesuffix(ending)


def _cells(line: str, separator: str | None) -> list[str]:
    """The cells of a line, without quotes."""
    if separator is None:
        line, separator = " ".join(line.split()), " "
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _value(cell: str, separator: str | None) -> float | None:
    """The number in a cell, None if there is none."""
    try:
        return float(cell.replace("_", "x") if separator == "," else cell.replace("_", "x").replace(",", "."))
    except ValueError:
        return None


# ----------------------------------------------------------------------------------------------------------- layout


def _find_layout(path: Path) -> _Layout:
    head = [line for _, line in zip(range(2), _lines(path), strict=False)]
    lines = [line for _, line in head]
    if any("\0" in line for line in lines):
        raise VaeflowError(f"{path} cannot be read as a table: it holds bytes that are no text.")
    separator = _find_separator(lines) if lines else ","
    rows = [_cells(line, separator) for line in lines]
    has_names = bool(rows) and (_is_header(rows[0], rows[1:], separator) or _is_quoted_alone(lines, rows[0]))
    if len(rows) <= has_names:
        raise VaeflowError(f"{path} holds no line of numbers, expected one line for each example.")
    row, names = rows[has_names], rows[0] if has_names else _names_in_comment(path, separator)
    surplus = 0 if separator is None else _count_empty_at_end(row)
    if has_names and names is not None:
        surplus = max(0, min(surplus, len(row) - (len(names) - _count_empty_at_end(names))))
        names = names[: max(len(row) - surplus, len(names) - _count_empty_at_end(names))]
    num_columns = len(row) - surplus
    text = lines[has_names]
    first_is_quoted = text.startswith('"') and text.count('"') == 2
    is_pair = separator == "," and num_columns == 2 and not first_is_quoted
    if has_names and is_pair and names is not None and len(names) == 1:
        raise VaeflowError(
            f"{path} has one name in line {head[0][0]} but two cells in line {head[1][0]}: if its commas are decimal "
            "signs, write points instead."
        )
    if has_names and names is not None and len(names) == num_columns - 1:
        names = ["", *names]  # R's write.table gives row names no header
    if names is not None and len(names) != num_columns:
        if has_names:
            (first, _), (second, _) = head
            raise VaeflowError(
                f"{path} has {len(names)} names in line {first} but {num_columns} cells in line {second}, expected one "
                "name for each column."
            )
        names = None
    return _Layout(separator, names, num_columns, surplus, has_names, first_is_quoted)


def _find_separator(lines: Sequence[str]) -> str | None:
    """The separator that cuts one of the first lines into numbers, those below the header first; None for blanks."""
    for line in reversed(lines):
        for separator in (";", "\t", ",", None):
            if (separator or " ") in line:
                cells = _cells(line, separator)
                if all(_value(c, separator) is not None or c.lower() in MISSING for c in cells):
                    return separator
    blanks = None if " " in lines[-1].strip() else ","
    return next((separator for separator in (";", "\t", ",") if separator in lines[-1]), blanks)


def _is_header(cells: Sequence[str], below: Sequence[Sequence[str]], separator: str | None) -> bool:
    """Whether the first line holds names: some cell is neither a number nor the mark of a missing value, none is a
    finite number, they are years, or the 0, 1, 2, … by which pandas calls columns without a name."""
    values = [_value(cell, separator) for cell in cells]
    if any(value is None and cell.lower() not in MISSING for value, cell in zip(values, cells, strict=True)):
        return True
    if not any(value is not None and math.isfinite(value) for value in values):
        return True
    numbers_below = [value for row in below for cell in row if (value := _value(cell, separator)) is not None]
    if _are_years(values) and not any(FIRST_YEAR <= value <= LAST_YEAR for value in numbers_below):
        return True
    if _go_in_steps(values) and numbers_below and not any(value.is_integer() for value in numbers_below):
        return True
    has_index = cells[0] == ""
    if list(cells[has_index:]) != [str(i) for i in range(len(cells) - has_index)]:
        return False
    return has_index or len(cells) >= 8 or any(not re.fullmatch(r"-?\d+", cell) for row in below for cell in row)


def _go_in_steps(values: Sequence[float | None]) -> bool:
    """Whether three numbers or more are whole and equally far apart, as wavelengths are."""
    whole = [value for value in values if value is not None and value.is_integer()]
    steps = {later - first for first, later in itertools.pairwise(whole)}
    return len(values) == len(whole) >= 3 and len(steps) == 1 and 0.0 not in steps


def _is_quoted_alone(lines: Sequence[str], cells: Sequence[str]) -> bool:
    """Whether all cells of the first line are quoted, and none below: names, even if they are numbers."""
    return len(lines) > 1 and lines[0].count('"') >= 2 * len(cells) and '"' not in lines[1]


def _are_years(values: Sequence[float | None]) -> bool:
    """Whether numbers are successive years, with nothing or one other cell before them."""
    years = [value for value in values[values[0] is None :] if value is not None]
    steps = {later - year for year, later in itertools.pairwise(years)}
    is_range = len(years) > 1 and min(years) >= FIRST_YEAR and max(years) <= LAST_YEAR
    return is_range and len(years) >= len(values) - 1 and steps in ({1.0}, {-1.0})


def _names_in_comment(path: Path, separator: str | None) -> list[str] | None:
    """The cells of the last comment above the numbers, such as the header that numpy.savetxt writes."""
    comment = None
    with _open(path) as file:
        for line in file:
            if line.startswith("#"):
                comment = line.lstrip("#").strip()
            elif line.strip():
                break
    return _cells(comment, separator) if comment else None


def _count_empty_at_end(cells: Sequence[str]) -> int:
    return next((i for i, cell in enumerate(reversed(cells)) if cell), len(cells))


# ----------------------------------------------------------------------------------------------------------- checks


def _numbers_rows(path: Path, layout: _Layout, j: int, column: np.ndarray) -> bool:
    """Whether a column has no name and numbers the rows one after another, in any order; or those of a larger table,
    where pandas has read it without a name before.

    Raises:
        VaeflowError: if it has no name among names, and other whole numbers.
    """
    has_no_name = layout.names is not None and UNNAMED.fullmatch(layout.names[j])
    is_quoted = layout.names is None and layout.first_is_quoted and j == 0
    if layout.num_columns == 1 or not (has_no_name or is_quoted) or not np.array_equal(column, np.round(column)):
        return False
    is_pandas_own = layout.names is not None and layout.names[j].startswith("Unnamed")
    steps = np.diff(np.sort(column))
    if (steps == 1).all() or (is_pandas_own and (steps > 0).all()):
        return True
    if has_no_name:
        raise VaeflowError(
            f"{layout.describe(j)} in {path} has no name and holds whole numbers: delete it if it numbers the rows, "
            "or else give it a name."
        )
    return False


def _refuse_bad_cell(path: Path, layout: _Layout, reason: str) -> NoReturn:
    """Raise a :class:`VaeflowError` that names the first line of another length, or cell that is no number."""
    lines = _lines(path)
    if layout.starts_with_names:
        next(lines)
    for number, line in lines:
        cells = _cells(line, layout.separator)
        if layout.surplus and not any(cells[-layout.surplus :]):
            cells = cells[: -layout.surplus]
        if len(cells) != layout.num_columns:
            raise VaeflowError(
                f"line {number} of {path} has {len(cells)} cell{'s' * (len(cells) != 1)}, expected "
                f"{layout.num_columns} numbers with {_SEPARATORS[layout.separator]} between them, as in the lines "
                "before."
            )
        for j, cell in enumerate(cells):
            value = _value(cell, layout.separator)
            if value is None or not math.isfinite(value):
                found = repr(cell[:40]) if cell else "nothing"
                advice = "correct it, or leave out the line or the column"
                if re.fullmatch(r"[+-]?[\d.,]+", cell):
                    advice = "write decimal points, and nothing between thousands"
                raise VaeflowError(
                    f"line {number} of {path} holds {found} in {layout.describe(j)}, expected a finite number: "
                    f"{advice}."
                )
    raise VaeflowError(f"{path} cannot be read as a table ({reason.splitlines()[0][:120]}).")


_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", None: "blanks"}
