"""Writes host and port as one text, and reads it back: an IPv6 address stands in brackets, since it has colons of its own. Pure."""

MAX_PORT = 65535


def joined(host: str, port: int | str) -> str:
    """`127.0.0.1:7600`, `[::1]:7600`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int]:
    """Host, without brackets, and port. Raises ValueError for what is not HOST:PORT, as `::1:7600`, which may be a host alone."""
    host, colon, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if is_bracketed else host
    if not colon or not name or is_bracketed != (":" in name) or set(name) & set("[]/, "):
        raise ValueError(f"{address!r} is not HOST:PORT")
    if not (port.isascii() and port.isdigit()) or int(port[:6]) > MAX_PORT:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return name, int(port)


def host_of(address: str) -> str:
    """The host of HOST:PORT or of a host alone, without brackets."""
    try:
        return split(address)[0]
    except ValueError:
        return address.removeprefix("[").removesuffix("]")
