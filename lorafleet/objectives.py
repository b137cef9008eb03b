"""What a base's scheduler may say of its objective: one rule, for the service before launch and for the trainer. Pure."""

SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
FIELD = "prediction_type"
DIFFUSION = "diffusion"  # the objective that these are kinds of; a family of another has none
FLOW = "flow"  # of rectified flow: times along a straight line from latents to noise
DEFAULT = "epsilon"  # diffusers', of a scheduler that does not say
TRAINED = ("epsilon", "v_prediction")
_OTHERS = ("sample", "flow_prediction", "trigflow")  # diffusers' other words: those that may be repeated
REASON = "BASE_MODEL_UNSUPPORTED"


def problem(kind: object, family: str) -> str | None:
    """What is wrong with the kind of prediction, as the end of a sentence whose subject is its file; None: nothing."""
    if isinstance(kind, str) and kind in TRAINED:
        return None
    told = f"{FIELD} {kind!r}" if isinstance(kind, str) and kind in _OTHERS else f"a {FIELD} that is not known"
    return f"has {told}; {family} trains {' and '.join(TRAINED)} alone"


def message(uri: str, what: str) -> str:
    """The whole sentence, of the base at `uri`."""
    return f"base_model.uri: {uri}/{SCHEDULER_CONFIG} {what}"
