"""Lays out tables, the one place that does: what names a row stays whole at any width, and long texts give way first. Knows no jobs.

When a table is wider than its console, columns without a value leave, then texts shrink, then columns leave, the least important
first, and in the end names fold. Cells are text: nothing in them is markup, and control characters are written out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from lorafleet.control_characters import one_line, visible
from lorafleet.terminal import encodable

GAP = 2  # spaces between columns
LEAST_TEXT = 20  # columns of a long text that say something
WHOLE_NAME = 40  # as long as a job's id may be; a longer name folds before a column leaves
LEAST_NAME = 8  # that a name may fold to

Cell = str | Text


class Fit(Enum):
    """What a column does when there is too little room."""

    WHOLE = auto()  # nothing, as a state or a number; or it leaves
    FOLD = auto()  # goes on in the next line, letter by letter, once nothing else helps: a name
    CUT = auto()  # ends in …
    WRAP = auto()  # goes on in the next line, word by word


_LEAST = {Fit.CUT: LEAST_TEXT, Fit.WRAP: LEAST_TEXT, Fit.FOLD: WHOLE_NAME}


@dataclass(frozen=True, kw_only=True)
class Column:
    """`leaves`: 0 stays always; of the others the highest leaves first, and before all others those with nothing in them."""

    heading: str
    fit: Fit = Fit.WHOLE
    leaves: int = 0
    right: bool = False  # justified to the right

    @property
    def is_long(self) -> bool:
        return self.fit in (Fit.CUT, Fit.WRAP)


def name(heading: str) -> Column:
    """What names a row."""
    return Column(heading=heading, fit=Fit.FOLD)


def state(heading: str) -> Column:
    """A word that is never cut."""
    return Column(heading=heading)


def value(heading: str, *, leaves: int, right: bool = False) -> Column:
    """A short value: whole, or not there."""
    return Column(heading=heading, leaves=leaves, right=right)


def number(heading: str, *, leaves: int) -> Column:
    """A cut number would be another number."""
    return value(heading, leaves=leaves, right=True)


def message(heading: str) -> Column:
    """A long text, of which the beginning says most."""
    return Column(heading=heading, fit=Fit.CUT)


def prose(heading: str, *, leaves: int = 0) -> Column:
    """A long text that is wanted whole."""
    return Column(heading=heading, fit=Fit.WRAP, leaves=leaves)


def details(fields: Iterable[tuple[str, Cell]]) -> "Table":
    """One thing, a line or more for each field that has a value."""
    shown = [(Text(heading, style="bold"), value.rstrip() if isinstance(value, str) else value) for heading, value in fields if value]
    return Table([state(""), prose("")], shown, heading_style=None)


class Table:
    """Rows under headings, as wide as the console that prints it allows."""

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, heading_style: str | None = "bold") -> None:
        """`heading_style` None: there are no headings."""
        self._columns = columns
        self._rows = [tuple(row) for row in rows]
        self._heading_style = heading_style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [[_cell(column, cell, options.encoding) for column, cell in zip(self._columns, row, strict=True)] for row in self._rows]
        if self._heading_style is not None:
            rows.insert(0, [Text(column.heading, style=self._heading_style) for column in self._columns])
        natural = [max((_width(row[place]) for row in rows), default=0) for place in range(len(self._columns))]
        body = rows if self._heading_style is None else rows[1:]
        empty = [not any(row[place].plain for row in body) for place in range(len(self._columns))]
        widths = widths_in(options.max_width, self._columns, natural, empty)
        for row in rows:
            yield from self._lines(console, row, widths)

    def _lines(self, console: Console, row: Sequence[Text], widths: Sequence[int | None]) -> Iterable[Text]:
        """A row's lines: one, unless something folds."""
        shown = [
            (_fitted(console, cell, column, width), width, column.right)
            for cell, column, width in zip(row, self._columns, widths, strict=True)
            if width is not None
        ]
        for number in range(max((len(lines) for lines, _, _ in shown), default=0)):
            yield _joined([(lines[number] if number < len(lines) else Text(), width, right) for lines, width, right in shown])


def widths_in(room: int, columns: Sequence[Column], natural: Sequence[int], empty: Sequence[bool]) -> list[int | None]:
    """The columns' widths in `room`; None: it has left. Pure.

    `natural` are the widths at which nothing gives way; `empty` tells the columns that hold nothing.
    """
    least = [min(width, _LEAST.get(column.fit, width)) for column, width in zip(columns, natural, strict=True)]
    shown = {place for place, width in enumerate(natural) if width}
    for place in _leaving(columns, empty):
        if _total(natural if empty[place] else least, shown) <= room:
            break
        shown.discard(place)
    widths = _folded(room, columns, least, shown)
    _grow(room, columns, natural, widths, shown)
    return [widths[place] if place in shown else None for place in range(len(columns))]


def _leaving(columns: Sequence[Column], empty: Sequence[bool]) -> list[int]:
    """The columns that may leave, first those that go first."""
    may = [place for place, column in enumerate(columns) if column.leaves]
    return sorted(may, key=lambda place: (not empty[place], -columns[place].leaves))


def _folded(room: int, columns: Sequence[Column], least: Sequence[int], shown: set[int]) -> list[int]:
    """The least widths, where that is still too much: of texts and names down to a few letters."""
    widths = list(least)
    for fits in ((Fit.CUT, Fit.WRAP), (Fit.FOLD,)):
        while (over := _total(widths, shown) - room) > 0:
            place = max((place for place in shown if columns[place].fit in fits), key=lambda place: widths[place], default=None)
            if place is None or widths[place] <= LEAST_NAME:
                break
            widths[place] = max(LEAST_NAME, widths[place] - max(1, over // len(shown)))
    return widths


def _grow(room: int, columns: Sequence[Column], natural: Sequence[int], widths: list[int], shown: set[int]) -> None:
    """Hands what is left to the texts, always to the one that lacks most."""
    left = room - _total(widths, shown)
    while left > 0:
        lacking = {place: natural[place] - widths[place] for place in shown if natural[place] > widths[place]}
        if not lacking:
            return
        names = [place for place in lacking if not columns[place].is_long]  # before texts
        place = names[0] if names else min(lacking, key=lambda place: widths[place])
        step = min(left, lacking[place], max(1, left // len(lacking)))
        widths[place] += step
        left -= step


def _total(widths: Sequence[int], shown: set[int]) -> int:
    return sum(widths[place] for place in shown) + GAP * max(0, len(shown) - 1)


def _width(cell: Text) -> int:
    return max((cell_len(line) for line in cell.plain.split("\n")), default=0)


def _cell(column: Column, cell: Cell, encoding: str) -> Text:
    """The cell as it can be written: in one line, unless its column wraps. Its own colours stay where its letters do."""
    plain, style = (cell.plain, cell.style) if isinstance(cell, Text) else (cell, "")
    shown = visible(plain.expandtabs(4)) if column.fit is Fit.WRAP else one_line(plain)
    shown = encodable(shown, encoding)
    return cell if isinstance(cell, Text) and shown == plain else Text(shown, style=style)


def _fitted(console: Console, cell: Text, column: Column, width: int) -> Sequence[Text]:
    if _width(cell) <= width and "\n" not in cell.plain:
        return [cell]
    if column.fit is Fit.CUT or not width:
        cut = cell.copy()
        cut.truncate(width, overflow="ellipsis")
        return [cut]
    if column.fit is Fit.WRAP:
        return list(cell.wrap(console, width, overflow="fold", no_wrap=False))
    return _letters(cell, width)


def _letters(cell: Text, width: int) -> Sequence[Text]:
    """Lines of a name, none wider than `width`: it can be read, and copied, letter by letter."""
    ends, begin, wide = list[int](), 0, 0
    for place, letter in enumerate(cell.plain):
        wide += cell_len(letter)
        if wide > width and place > begin:
            ends.append(place)
            begin, wide = place, cell_len(letter)
    return list(cell.divide(ends))


def _joined(cells: Sequence[tuple[Text, int, bool]]) -> Text:
    """One line of the table, without spaces at its end."""
    line = Text(no_wrap=True, overflow="ignore", end="\n")
    for place, (cell, width, right) in enumerate(cells):
        pad = " " * max(0, width - _width(cell))
        is_last = place == len(cells) - 1
        line.append_text(Text.assemble(pad, cell) if right else cell if is_last else Text.assemble(cell, pad))
        line.append("" if is_last else " " * GAP)
    line.rstrip()
    return line
