"""Any protobuf message gone wrong, made from its descriptor: wild ones and mutated ones for Hypothesis, and each field at its edges."""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

MAX_DEPTH = 4

# What breaks programs that put strings into paths, queries, patterns and logs.
NASTY = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x7f\x1b[31m",
    "\n",
    "..",
    "../../etc/passwd",
    "file:///",
    "file:///etc/passwd",
    "file:///..",
    "file:///a//b",
    "file:///a%2e%2e/b",
    "file:///a\\b",
    "file:///\x00",
    "file:///" + "a" * 5000,
    "file:///．．/b",
    "s3://",
    "s3://../b",
    "s3://bucket/../other",
    "tenants/acme",
    "tenants/other",
    "tenants/acme/jobs/one",
    "tenants/acme/batches/night",
    "tenants/acme/jobs/'; DROP TABLE jobs; --",
    "' OR 1=1 --",
    "'; DROP TABLE jobs; --",
    'state = RUNNING AND labels.a = "b"',
    "labels.\x00 = 1",
    'labels.a = "\x00"',
    'create_time > "0001-01-01T00:00:00Z"',
    'create_time > "9999-12-31T23:59:59+14:00"',
    'create_time > "0001-01-01T00:00:00+14:00"',
    "NOT " * 300 + "state = RUNNING",
    "(" * 900 + "state = RUNNING" + ")" * 900,
    "{}",
    "%s%n%d",
    "${jndi:ldap://x}",
    "\ud7ff\ue000\uffff\U0010ffff",
    "🦊" * 100,
    "e\u0301" * 50,
    "x" * 70_000,
    "00000000-0000-0000-0000-000000000000",
    "run-0000000000000000",
    "driver",
)

# An index of PostgreSQL takes some thousand bytes after compression, so this must not compress well.
LONG_AND_MIXED = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(20_000))
# What a text may be that databases, files or logs do not take as they take others.
EDGES_OF_TEXT: tuple[Callable[[str], str], ...] = (
    lambda text: f"{text}\x00",
    lambda text: f"{text}\n\U0010ffff",
    lambda text: text + LONG_AND_MIXED,
    lambda text: "",
)

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def texts() -> st.SearchStrategy[str]:
    return st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


def wild(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
    """Any message of the type."""

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = _class(descriptor)()
        for field in descriptor.fields:
            if draw(st.booleans()):
                _set(draw, message, field, depth)
        return message

    return build()


def mutated(good: Message) -> st.SearchStrategy[Message]:
    """The good message with one to three of its fields, at any depth, replaced or cleared."""

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = type(good)()
        message.CopyFrom(good)
        for _ in range(draw(st.integers(1, 3))):
            _mutate(draw, message)
        return message

    return build()


def at_edges(good: Message) -> Iterator[Message]:
    """The good message with one of its scalar fields, at any depth, at one of its edges."""
    for path, field in _scalars(good):
        for edge in _edges(_at(good, path), field):
            message = type(good)()
            message.CopyFrom(good)
            _put(_at(message, path), field, edge)
            yield message


def _scalars(message: Message, path: tuple[tuple[str, int | None], ...] = ()) -> Iterator[tuple[Any, FieldDescriptor]]:
    """Every scalar field of the message and of the messages in it, with the way to where it is."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None:
            yield path, field
        elif field.message_type.GetOptions().map_entry:
            continue
        elif field.is_repeated:
            for index, part in enumerate(getattr(message, field.name)):
                yield from _scalars(part, (*path, (field.name, index)))
        elif message.HasField(field.name):
            yield from _scalars(getattr(message, field.name), (*path, (field.name, None)))


def _at(message: Any, path: tuple[tuple[str, int | None], ...]) -> Any:
    for name, index in path:
        message = getattr(message, name)
        message = message if index is None else message[index]
    return message


def _edges(holder: Any, field: FieldDescriptor) -> list[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type != FieldDescriptor.TYPE_BYTES:
            old = getattr(holder, field.name)
            text = next(iter(old), "") if field.is_repeated else old
            return [edge(text) for edge in EDGES_OF_TEXT]
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return [float("nan"), float("inf"), -1.0, 1e300]
        case FieldDescriptor.CPPTYPE_ENUM:
            return [0, 2**31 - 1]
        case kind if kind in _INTEGERS:
            low, high = _INTEGERS[kind]
            return [low, high]
        case _:
            return []


def _put(holder: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        getattr(holder, field.name).append(value)
    else:
        setattr(holder, field.name, value)


def _mutate(draw: st.DrawFn, message: Message, depth: int = 0) -> None:
    if not message.DESCRIPTOR.fields:
        return
    field = draw(st.sampled_from(list(message.DESCRIPTOR.fields)))
    if _holds_messages(message, field) and draw(st.integers(0, 3)):
        _mutate(draw, draw(st.sampled_from(list(getattr(message, field.name)))), depth + 1)
        return
    inside = field.message_type is not None and not field.is_repeated and message.HasField(field.name)
    if inside and draw(st.integers(0, 3)):
        _mutate(draw, getattr(message, field.name), depth + 1)
    elif draw(st.integers(0, 4)) == 0:
        message.ClearField(field.name)
    else:
        message.ClearField(field.name)
        _set(draw, message, field, depth)


def _holds_messages(message: Message, field: FieldDescriptor) -> bool:
    is_list = field.is_repeated and field.message_type is not None and not field.message_type.GetOptions().map_entry
    return is_list and len(getattr(message, field.name)) > 0


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        values = _scalar(field.message_type.fields_by_name["value"])
        for key, value in draw(st.dictionaries(texts(), values, max_size=3)).items():
            getattr(message, field.name)[key] = value
    elif field.message_type is not None:
        if depth < MAX_DEPTH:
            _set_message(draw, message, field, depth)
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(_scalar(field), max_size=3)))
    else:
        setattr(message, field.name, draw(_scalar(field)))


def _set_message(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    parts = wild(field.message_type, depth + 1)
    if field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(parts, max_size=3)))
    else:
        getattr(message, field.name).CopyFrom(draw(parts))


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return st.binary(max_size=100) if field.type == FieldDescriptor.TYPE_BYTES else texts()
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.sampled_from([value.number for value in field.enum_type.values]) | st.integers(-5, 1000)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats(width=64 if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else 32)
        case _:
            low, high = _INTEGERS[field.cpp_type]
            return st.integers(low, high) | st.sampled_from([0, 1, -1 if low else 0, low, high])


def _class(descriptor: Descriptor) -> Any:
    return message_factory.GetMessageClass(descriptor)
