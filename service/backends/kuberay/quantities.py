"""Reads and writes Kubernetes quantities: 500m, 4Gi."""

from decimal import ROUND_CEILING, Decimal

_SUFFIXES = {
    "m": Decimal("0.001"),
    **{name: Decimal(1000) ** power for power, name in enumerate("kMGT", start=1)},
    **{f"{name}i": Decimal(1024) ** power for power, name in enumerate("KMGT", start=1)},
}


def amount(quantity: str) -> Decimal:
    """The number that it stands for."""
    number = quantity.rstrip("mkMGTKi")
    return Decimal(number) * _SUFFIXES.get(quantity[len(number) :], Decimal(1))


def size_bytes(quantity: str) -> int:
    """As bytes, rounded up."""
    return int(amount(quantity).to_integral_value(ROUND_CEILING))


def cpus(number: float) -> str:
    """So many CPUs, in thousandths, rounded up."""
    return f"{int((Decimal(str(number)) * 1000).to_integral_value(ROUND_CEILING))}m"


def gib(number: float) -> str:
    """So much memory, in MiB, rounded up."""
    return f"{int((Decimal(str(number)) * 1024).to_integral_value(ROUND_CEILING))}Mi"
