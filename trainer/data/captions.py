"""Captions from metadata.jsonl, metadata.csv and the text files beside the pictures. Whatever they hold, what is wrong is named.

Sizes are known before a file is read, and depths before it is parsed. Knows nothing of pixels.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from pydantic import JsonValue

from trainer.data.files import Files, Names, Some, is_hidden, shown, texts_beside
from trainer.storage import Folder

MAX_METADATA_BYTES = 32 * 2**20  # of one metadata file, and of all captions beside pictures together
MAX_TEXT_BYTES = 2**18  # of one caption beside a picture
MAX_ROWS = 250_000  # of one metadata file
MAX_LINE = 2**20  # characters
MAX_CAPTION = 20_000  # characters; encoders take a few hundred
MAX_DEPTH = 32  # of JSON inside a line
READ_AT_ONCE = 256

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # also one that is not closed: to look for its end from every quote takes hours
_STEPS = np.zeros(256, np.int32)  # into and out of a level, by character
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Unusable(Exception):
    """Something in a caption file that cannot be used; the message goes to the user."""


@dataclass
class Captions:
    """What was found: of each picture its caption, which may be empty, or why it has none."""

    by_picture: dict[str, str] = field(default_factory=dict)
    null_at: dict[str, str] = field(default_factory=dict)  # picture -> place where its caption is null
    spoiled: set[str] = field(default_factory=set)  # pictures whose caption is among the problems
    problems: Some = field(default_factory=Some)  # places with what is wrong there
    absent: Some = field(default_factory=Some)  # names that metadata gives, of files that are not there
    _said_at: dict[str, str] = field(default_factory=dict)  # picture -> place of its caption in a metadata file

    def say(self, picture: str, caption: str, place: str) -> None:
        if self.by_picture.setdefault(picture, caption) != caption and picture in self._said_at:
            raise Unusable(f"gives {shown(picture)} another caption than {self._said_at[picture]} does")
        self._said_at.setdefault(picture, place)


def find(folder: Folder, files: Files, column: str) -> Captions:
    """Reads every caption of a data set. Raises only what the store raises: what is wrong with the files is in the result."""
    found, names = Captions(), files.names
    for path in files.metadata:
        try:
            _read_metadata(folder, files, path, column, names, found)
        except Unusable as error:
            found.problems.add(f"{shown(path)} {error}")
    _read_beside(folder, files, found)
    return found


def _read_metadata(folder: Folder, files: Files, path: str, column: str, names: Names, found: Captions) -> None:
    _check_size(files.sizes[path], MAX_METADATA_BYTES)
    text = _text(folder.get(path))
    is_table, here = path.lower().endswith(".csv"), path.rpartition("/")[0]
    already = set(found.by_picture)  # by metadata that goes before this file's
    rows = _table(text, column) if is_table else _lines(text, column)
    for line, row in rows:
        place = f"{shown(path)} line {line}"
        try:
            if isinstance(row, Unusable):
                raise row
            _take(row, place, column, here, names, already, found)
        except Unusable as error:
            found.problems.add(f"{place}: {error}")


def _take(row: tuple[object, object], place: str, column: str, here: str, names: Names, already: set[str], found: Captions) -> None:
    name, caption = row
    if not isinstance(name, str):
        raise Unusable(f"file_name is {_kind(name)}; it must be the name of a file")
    picture = names.find(name, here)
    if picture is None:
        _say_absent(name, found)
    elif caption is None:
        found.null_at.setdefault(picture, f"{place}: {shown(column)} is null")
    elif picture not in already:
        found.spoiled.add(picture)
        found.say(picture, _checked(_text_in(column, caption)), place)
        found.spoiled.discard(picture)


def _text_in(column: str, caption: object) -> str:
    if not isinstance(caption, str):
        raise Unusable(f"{shown(column)} is {_kind(caption)}; a caption is one text")
    return caption


def _say_absent(name: str, found: Captions) -> None:
    if not is_hidden(name):  # a script that lists a folder also lists what systems left there
        found.absent.add(name)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object" if isinstance(value, dict) else "a text"


# Files


def _check_size(size_bytes: int, most: int) -> None:
    if size_bytes > most:
        raise Unusable(f"has {size_bytes:,} bytes, and at most {most:,} are read")


def _text(data: bytes) -> str:
    if (encoding := _BYTE_ORDER_MARKS.get(data[:2])) is not None:
        raise Unusable(f"is not UTF-8: it begins as {encoding} does; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unusable(f"is not UTF-8: byte 0x{data[error.start]:02x} in line {line}; save it as UTF-8") from None
    if "\0" in text:
        raise Unusable("is not plain text: it has NUL characters, as UTF-16 has; save it as UTF-8")
    return text


def _checked(caption: str) -> str:
    if len(caption) > MAX_CAPTION:
        raise Unusable(f"a caption of {len(caption):,} characters; at most {MAX_CAPTION:,} are taken")
    if (half := _HALF_A_PAIR.search(caption)) is not None:
        raise Unusable(
            f"the caption holds half a character, \\u{ord(half[0]):04x}, whose other half was cut off; write it out or leave it out"
        )
    return caption.strip()


# metadata.jsonl


def _lines(text: str, column: str) -> Iterator[tuple[int, tuple[object, object] | Unusable]]:
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):  # splitlines would also cut at what captions may hold
        if number > MAX_ROWS:
            yield number, Unusable(f"is one of more than {MAX_ROWS:,}, which are not read")
            return
        if line.strip():
            try:
                yield number, _columns(_parsed(line), column)
            except Unusable as error:
                yield number, error


def _parsed(line: str) -> Mapping[str, object]:
    if len(line) > MAX_LINE:
        raise Unusable(f"has {len(line):,} characters, and at most {MAX_LINE:,} are read")
    if _depth(line) > MAX_DEPTH:
        raise Unusable(f"is nested deeper than {MAX_DEPTH} levels")
    try:
        row: JsonValue = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"is not JSON: {shown(str(error))}") from None
    if not isinstance(row, dict):
        raise Unusable(f'is not a JSON object but {_kind(row)}; each line is one, as {{"file_name": "a.png", "text": "..."}}')
    return row


def _depth(line: str) -> int:
    """How deep the JSON in a line is nested: the parser would find out by recursion."""
    if line.count("[") + line.count("{") <= MAX_DEPTH:
        return 0
    bare = _STRING.sub("", line).encode("ascii", "replace")
    return int(np.cumsum(_STEPS[np.frombuffer(bare, np.uint8)]).max(initial=0))


def _columns(row: Mapping[str, object], column: str) -> tuple[object, object]:
    missing = [name for name in ("file_name", column) if name not in row]
    if missing:
        there = ", ".join(shown(str(name), 40) for name in list(row)[:10])
        raise Unusable(f"no {shown(' and no '.join(missing))}; it has {there} (dataset.caption_column names the caption)")
    return row["file_name"], row[column]


# metadata.csv


def _table(text: str, column: str) -> Iterator[tuple[int, tuple[object, object] | Unusable]]:
    """Rows by the line at which they begin. A table that cannot be parsed ends there."""
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text.partition("\n")[0]))
    last, is_unbalanced = text.rstrip("\n").count("\n") + 1, text.count('"') % 2 == 1
    begins = 2
    try:
        for number, row in enumerate(rows, start=1):
            if number > MAX_ROWS:
                raise csv.Error(f"is one of more than {MAX_ROWS:,}, which are not read")
            if is_unbalanced and begins < rows.line_num >= last:
                raise csv.Error("a quote is opened here, and not closed again")
            yield begins, _cells(row, column)
            begins = rows.line_num + 1
    except csv.Error as error:
        yield begins, Unusable(f"{error}; is a quote not closed?" if "limit" in str(error) else str(error))


def _cells(row: Mapping[str | None, object], column: str) -> tuple[object, object] | Unusable:
    named = {key: value for key, value in row.items() if key is not None}  # what is beyond the header has no name
    try:
        name, caption = _columns(named, column)
    except Unusable as error:
        return error
    return name, caption


def _delimiter(header: str) -> str:
    """Spreadsheets of many countries write semicolons, and some tools tabs."""
    for delimiter in (",", ";", "\t"):
        if "file_name" in [cell.strip(' "\r') for cell in header.split(delimiter)]:
            return delimiter
    return ","


# Text files beside the pictures


def _read_beside(folder: Folder, files: Files, found: Captions) -> None:
    """Captions of the pictures that no metadata names."""
    texts = Names(files.texts)
    beside: dict[str, list[str]] = {}  # text file -> pictures: two of one stem share it
    for picture in files.pictures:
        if picture not in found.by_picture:
            path = next((path for name in texts_beside(picture) if (path := texts.find(name)) is not None), None)
            if path is not None:
                beside.setdefault(path, []).append(picture)
    if (total := sum(files.sizes[path] for path in beside)) > MAX_METADATA_BYTES:
        found.problems.add(f"the captions beside the pictures have {total:,} bytes, and at most {MAX_METADATA_BYTES:,} are read")
        return
    for path, text in _texts(folder, files, beside, found.problems):
        found.by_picture.update(dict.fromkeys(beside.pop(path), text))
    found.spoiled.update(*beside.values())


def _texts(folder: Folder, files: Files, paths: Iterable[str], problems: Some) -> Iterator[tuple[str, str]]:
    small: list[str] = []
    for path in paths:
        try:
            _check_size(files.sizes[path], MAX_TEXT_BYTES)
            small.append(path)
        except Unusable as error:
            problems.add(f"{shown(path)} {error}")
    for start in range(0, len(small), READ_AT_ONCE):
        for path, data in folder.read_all(small[start : start + READ_AT_ONCE]).items():
            try:
                yield path, _checked(_text(data))
            except Unusable as error:
                problems.add(f"{shown(path)} {error}" if "is not" in str(error) else f"{shown(path)}: {error}")
