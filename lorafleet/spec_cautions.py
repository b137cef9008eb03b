"""What is allowed in a spec, and is hardly ever meant: sentences for whoever sent it. Pure."""

from collections.abc import Iterator

from lorafleet.catalog import METHODS, OPTIMIZERS
from lorafleet.spec import Spec

_SMALL = 0.01  # of a factor that is 1 as a rule


def cautions(spec: Spec) -> Iterator[str]:
    """Each begins with its field."""
    if METHODS.get(spec.adapter.method).ranks_by_noise:
        yield (
            f"adapter.method: a file of {spec.adapter.method} is a LoRA of its whole rank, which readers apply at every time; pictures "
            "drawn here go by its ranks at each, so elsewhere the style is stronger where there is much noise, in a picture's composition"
        )
    for number, each in enumerate(spec.textual_inversion.tokens):
        if each.token.isalnum():
            yield (
                f'textual_inversion.tokens[{number}].token: "{each.token}" is found within longer words of prompts as well; '
                f"<{each.token}> would not be"
            )
    optimizer, rate = OPTIMIZERS.get(spec.training.optimizer), spec.training.learning_rate
    if optimizer.usual_rate is not None and rate < _SMALL * optimizer.usual_rate:
        yield (
            f"training.learning_rate: {optimizer.name} finds its rate by itself, and {rate:g} is a factor of it, "
            f"which is {optimizer.usual_rate:g} as a rule: it will hardly learn"
        )
