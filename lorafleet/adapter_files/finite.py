"""Whether numbers in a file are finite, without a library for them: all bits of an exponent are set in a NaN and in what is infinite.

Many numbers are looked at at once, as one large integer. Of each only the exponent is kept, and its lowest bit is added: that carries into
the sign's place just where all bits were set, and never into the next number.
"""

# Of each type: its bytes, and the bits of its exponent.
_TYPES = {"F16": (2, 0x7C00), "BF16": (2, 0x7F80), "F32": (4, 0x7F80_0000), "F64": (8, 0x7FF0_0000_0000_0000)}
DTYPES = frozenset(_TYPES)
_AT_ONCE = 2**16  # bytes


def all_finite(dtype: str, data: memoryview) -> bool:
    """Of little-endian numbers of that type, one of DTYPES."""
    size, exponent = _TYPES[dtype]
    lowest, sign = exponent & -exponent, 1 << (8 * size - 1)
    num = _AT_ONCE // size
    masks = [_repeated(bits, size, num) for bits in (exponent, lowest, sign)]
    for start in range(0, len(data), _AT_ONCE):
        some = int.from_bytes(data[start : start + _AT_ONCE], "little")
        if ((some & masks[0]) + masks[1]) & masks[2]:
            return False
    return True


def _repeated(bits: int, size: int, num: int) -> int:
    return int.from_bytes(bits.to_bytes(size, "little") * num, "little")
