"""Numbers the queue as users see it."""


def rounded(place: int) -> int:
    """Exact up to 100, rounded down to two digits that count beyond: a queue that moves up by one changes few of them."""
    if place <= 100:
        return place
    unit = 10 ** (len(str(place)) - 2)
    return place // unit * unit
