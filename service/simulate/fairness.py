"""Computes fair shares, and the distance from them. Pure."""

from collections.abc import Mapping, Sequence


def max_min(capacity: float, demands: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Max-min fair parts of the capacity by weight: nobody gets more than it asks for, and what it leaves is shared by the others."""
    parts: dict[str, float] = {}
    left, total = capacity, sum(weights.get(tenant, 1.0) for tenant in demands)
    for tenant in sorted(demands, key=lambda tenant: demands[tenant] / weights.get(tenant, 1.0)):
        weight = weights.get(tenant, 1.0)
        parts[tenant] = min(demands[tenant], left * weight / total)
        left, total = left - parts[tenant], total - weight
    return parts


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index (Jain, Chiu, Hawe 1984): (sum x)^2 / (n sum x^2). 1: all are equal; 1/n: one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
