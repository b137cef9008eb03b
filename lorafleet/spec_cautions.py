"""What is allowed in a spec, and is hardly ever meant: sentences for whoever sent it. Pure."""

from collections.abc import Iterator

from lorafleet.catalog import OPTIMIZERS
from lorafleet.spec import Spec

_SMALL = 0.01  # of a factor that is 1 as a rule


def cautions(spec: Spec) -> Iterator[str]:
    """Each begins with its field."""
    optimizer, rate = OPTIMIZERS.get(spec.training.optimizer), spec.training.learning_rate
    if optimizer.usual_rate is not None and rate < _SMALL * optimizer.usual_rate:
        yield (
            f"training.learning_rate: {optimizer.name} finds its rate by itself, and {rate:g} is a factor of it, "
            f"which is {optimizer.usual_rate:g} as a rule: it will hardly learn"
        )
