"""Says how long to wait before the next try: twice as long after each failure, within a bound, and spread so that not all return at once.

Only says how long; does not wait.
"""

import random

_MOST_DOUBLINGS = 30  # beyond it nothing is short of its bound, and powers of two only get slow


def doubled_s(first_s: float, most_s: float, doublings: int) -> float:
    """`first_s`, doubled so many times, and never more than `most_s`."""
    return min(most_s, first_s * 2 ** min(doublings, _MOST_DOUBLINGS))


def spread_s(wait_s: float) -> float:
    """Between half of it and all."""
    return wait_s * random.uniform(0.5, 1.0)
