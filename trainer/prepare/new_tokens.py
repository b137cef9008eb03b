"""Whether new tokens can be learned from a data set, on a base: what of it has them, and how much room a caption has. Pure."""

from collections.abc import Collection, Iterator

from lorafleet.errors import RunFailed, Violation
from lorafleet.spec import Spec

MARKS = 2  # tokens that begin and end a caption


def check_room(spec: Spec, max_tokens: int) -> Iterator[Violation]:
    """`max_tokens`: that the base's text encoders take."""
    room, wanted = max_tokens - MARKS, spec.textual_inversion.num_vectors
    if wanted > room:
        message = f"{wanted} vectors in all do not fit into the {room} tokens of a caption that this base takes: use fewer"
        yield Violation(field="textual_inversion.tokens", message=message)


def check_are_used(spec: Spec, captions: Collection[str]) -> None:
    """`captions`: that are trained on, with the trigger phrase. Raises RunFailed: a token that none has would stay as it began."""
    for number, each in enumerate(spec.textual_inversion.tokens):
        if not any(each.token in caption for caption in captions):
            field = f"textual_inversion.tokens[{number}].token"
            message = f'{field}: "{each.token}" is in no caption that is trained on, so nothing would be learned: put it into captions'
            raise RunFailed(f"{message}, or into dataset.trigger_phrase", reason="TOKEN_NOT_USED")


def cautions(spec: Spec, captions: Collection[str]) -> Iterator[str]:
    """Of tokens that hardly any caption has."""
    for number, each in enumerate(spec.textual_inversion.tokens):
        num_with = sum(each.token in caption for caption in captions)
        if num_with * 2 < len(captions):
            yield (
                f'textual_inversion.tokens[{number}].token: "{each.token}" is in {num_with} of {len(captions)} captions that are trained '
                "on, and learns from these alone"
            )
