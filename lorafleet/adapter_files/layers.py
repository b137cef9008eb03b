"""What the tensors of one layer in an adapter file must be, by their shapes: whole, fitting, and of a rank. Pure."""

from collections.abc import Collection, Mapping

from lorafleet.catalog.method import Shape

_NEEDED = {"lora": ("A", "B"), "loha": ("w1_a", "w1_b", "w2_a", "w2_b"), "oft": ("blocks",)}


def missing(method: str, roles: Collection[str]) -> list[str]:
    """The roles without which it is half an adapter."""
    if method == "lokr":
        sides = [(f"w{number}", f"w{number}_a", f"w{number}_b") for number in (1, 2)]
        return [whole for whole, a, b in sides if whole not in roles and not {a, b} <= set(roles)]
    return [role for role in _NEEDED.get(method, ("all but its alpha",)) if role not in roles]


def differs(shapes: Mapping[str, Shape]) -> bool:
    """Whether LoRA's A and B do not fit: A's outputs are B's inputs."""
    a, b, mid = shapes["A"], shapes["B"], shapes.get("mid")
    if len(a) not in (2, 4) or len(b) != len(a) or (mid is not None and len(mid) < 2):
        return True
    return a[0] != b[1] if mid is None else a[0] != mid[1] or mid[0] != b[1]


def rank(method: str, shapes: Mapping[str, Shape]) -> int:
    """Of a layer that is whole."""
    match method:
        case "loha":
            return shapes["w1_b"][0]
        case "lokr":
            return next((shapes[role][0] for role in ("w2_b", "w1_b") if role in shapes), min(shapes["w1"][:2]))
        case "oft":
            return shapes["blocks"][-1]
        case _:
            return shapes["A"][0]
