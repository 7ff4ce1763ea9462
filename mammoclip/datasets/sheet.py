"""A CSV or Excel table of a data set: every cell is text until its column is read, and what cannot be read is told.

A cell that is not what its column should hold is left out, the rest of its row stays, and a row of ``REJECTED`` says
which one it was. The value itself is not repeated there: in a shifted table it may be a name.
"""

from __future__ import annotations

import codecs
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import fastexcel
import polars as pl

from mammoclip.errors import DatasetError

log = logging.getLogger(__name__)

REJECTED = pl.Schema(
    {
        "path": pl.String,  # table and row ("labels.csv row 7"; the header is row 1), or a file
        "reason": pl.String,  # one of artifacts.REJECT_REASONS
        "detail": pl.String,
    }
)

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_LIST = rf"(?s)^\s*\[\s*(?:(?:{_QUOTED})\s*(?:,\s*(?:{_QUOTED})\s*)*,?\s*)?\]\s*$"


class Sheet:
    """One table; ``frame`` holds its columns and ``_row``, the number of the row (the header is row 1)."""

    def __init__(self, root: Path, name: str, required: Sequence[str], separator: str = ",") -> None:
        """Read ``root/name``; blank lines are left out, and a row that repeats an earlier one is told.

        A column ``fold``, where there is one, is read as whole numbers.

        Raises:
            DatasetError: if the file or one of the ``required`` columns is missing, or the file is not a CSV.
        """
        self.name = name
        self._rejected: list[pl.DataFrame] = []
        self.frame = read_table(root / name, required, separator)
        again = ~pl.struct(pl.exclude("_row")).is_first_distinct()
        self.note(again, "duplicate_row", "equal to an earlier row in every column; it counts once")
        if "fold" in self.frame.columns:  # the one optional column that means the same in every table
            self.read_integers("fold", low=0)

    @property
    def rejected(self) -> pl.DataFrame:
        """What was left out so far; ``REJECTED``."""
        return pl.concat([pl.DataFrame(schema=REJECTED), *self._rejected])

    @property
    def source(self) -> pl.Expr:
        """The origin of each row in words, such as ``labels.csv row 7``."""
        return pl.format(f"{self.name} row {{}}", "_row")

    def drop(self, unusable: pl.Expr, reason: str, detail: str) -> None:
        """Put aside the rows for which ``unusable`` is true."""
        if self.note(unusable, reason, detail):
            self.frame = self.frame.filter(~unusable.fill_null(False))

    def note(self, unusable: pl.Expr, reason: str, detail: str) -> int:
        """Report the rows for which ``unusable`` is true, and return their number."""
        rows = self.frame.lazy().filter(unusable).select(path=self.source, reason=pl.lit(reason), detail=pl.lit(detail))
        found = rows.collect()
        if len(found):
            self._rejected.append(found)
        return len(found)

    def read_numbers(self, *columns: str) -> None:
        """Turn the columns into finite 64-bit numbers; an empty cell is null."""
        for name in columns:
            number = _text(name).cast(pl.Float64, strict=False)
            self._read(name, pl.when(number.is_finite()).then(number), "a number")

    def read_integers(self, *columns: str, low: int | None = None, high: int | None = None) -> None:
        """Turn the columns into whole numbers of 32 bits, also when written ``1.0``, ``True`` or ``False``."""
        limits = "" if low is None else f" from {low}" if high is None else f" from {low} to {high}"
        for name in columns:
            text = _text(name).str.to_lowercase().replace({"true": "1", "false": "0"})
            number = text.cast(pl.Float64, strict=False)
            whole = number.cast(pl.Int32, strict=False)
            valid = whole == number
            if low is not None:
                valid &= whole >= low
            if high is not None:
                valid &= whole <= high
            self._read(name, pl.when(valid).then(whole), f"a whole number{limits}")

    def read_values(self, column: str, values: Mapping[str, int]) -> None:
        """Turn the spellings of ``values`` (in any case) into their numbers."""
        upper = {spelling.upper(): number for spelling, number in values.items()}
        number = _text(column).str.to_uppercase().replace_strict(upper, default=None, return_dtype=pl.Int32)
        self._read(column, number, f"one of {', '.join(values)}")

    def read_density(self, column: str) -> None:
        """Turn breast density, A to D or 0 to 3, into 0 to 3."""
        spellings = {"A": 0, "B": 1, "C": 2, "D": 3, **{str(n): n for n in range(4)}, **{f"{n}.0": n for n in range(4)}}
        number = _text(column).str.to_uppercase().replace_strict(spellings, default=None, return_dtype=pl.Int32)
        self._read(column, number, "A to D or 0 to 3")

    def read_lists(self, column: str) -> None:
        """Turn lists of quoted texts, as Python prints them, into lists; nothing is evaluated."""
        self._read(column, parse_lists(pl.col(column)), "a list of quoted names")

    def _read(self, column: str, value: pl.Expr, expected: str) -> None:
        read = self.frame.with_columns(value.alias("_value"))
        wrong = pl.col("_value").is_null() & _text(column).is_not_null()
        self.frame = read
        self.note(wrong, "wrong_type", f"{column} should be {expected}; the cell is left out")
        self.frame = read.with_columns(pl.col("_value").alias(column)).drop("_value")


def parse_lists(text: pl.Expr) -> pl.Expr:
    r"""Parse lists of quoted texts (``"['Mass', 'Asymmetry']"``), null where the text is none; nothing is evaluated.

    >>> frame = pl.DataFrame({"x": ["['Mass', \"it's\"]", "[]", "os.remove('x')"]})
    >>> frame.select(parse_lists(pl.col("x")))["x"].to_list()
    [['Mass', "it's"], [], None]
    """
    element = pl.element().str.slice(1, pl.element().str.len_chars() - 2)
    # A backslash that stands for itself is set aside while the others are resolved.
    for escape, meaning in ((r"\\\\", "\0"), (r"\\n", "\n"), (r"\\(.)", "$1"), ("\0", "\\")):
        element = element.str.replace_all(escape, meaning)
    elements = text.str.extract_all(_QUOTED).list.eval(element)
    return pl.when(text.str.contains(_LIST)).then(elements)


def read_table(path: Path, required: Sequence[str], separator: str = ",") -> pl.DataFrame:
    """Read a CSV, or the first sheet of an .xlsx file, with every column as text; blank lines are left out.

    ``_row`` is the number of each row. Encodings of a CSV: UTF-8 or UTF-16 with or without byte order mark; bytes that
    are no UTF-8 are read as Windows-1252, and the log says how many there were.

    Raises:
        DatasetError: if the file or one of the ``required`` columns is missing, or the file is not what its name says.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; the data set's root should hold it")
    frame = _parse_excel(path) if path.suffix == ".xlsx" else _parse_csv(path, separator)
    frame = frame.with_row_index("_row", offset=2)
    for column in required:
        if column not in frame.columns:
            found = ", ".join(name for name in frame.columns if name != "_row")
            raise DatasetError(f"{path} has no column {column!r}; found {found}")
    return frame.filter(~pl.all_horizontal(pl.exclude("_row").is_null()))


def _parse_excel(path: Path) -> pl.DataFrame:
    try:
        return pl.read_excel(path, infer_schema_length=0)
    except (pl.exceptions.PolarsError, fastexcel.FastExcelError) as error:
        raise DatasetError(f"{path} is not a readable .xlsx file ({str(error).splitlines()[0]})") from None


def _parse_csv(path: Path, separator: str) -> pl.DataFrame:
    try:
        try:
            return pl.read_csv(path, infer_schema=False, separator=separator)
        except pl.exceptions.PolarsError:
            text = _decode(path)
            if text is None:
                raise
            return pl.read_csv(io.BytesIO(text.encode()), infer_schema=False, separator=separator)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(f"{path} is not a readable CSV ({reason}); save it as comma-separated UTF-8") from None


def _decode(path: Path) -> str | None:
    """Return the text of a file that is not plain UTF-8; None: it is, and its fault lies elsewhere."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    foreign = 0

    def as_windows_1252(error: UnicodeError) -> tuple[str, int]:
        nonlocal foreign
        assert isinstance(error, UnicodeDecodeError)
        foreign += error.end - error.start
        return error.object[error.start : error.end].decode("cp1252", errors="replace"), error.end

    codecs.register_error("mammoclip.windows_1252", as_windows_1252)
    text = data.decode("utf-8-sig", errors="mammoclip.windows_1252")
    if not foreign:
        return None
    log.warning("%s: %d bytes are no UTF-8; they were read as Windows-1252", path, foreign)
    return text


def _text(column: str) -> pl.Expr:
    """Return the cell without surrounding blanks; an empty one is null."""
    text = pl.col(column).str.strip_chars()
    return pl.when(text != "").then(text)
