"""Checks profiles of pods: operators configure them, specs name one. Pure."""

from collections.abc import Sequence

from lorafleet.errors import Violation
from lorafleet.spec import DEFAULT_PROFILE, Spec

ONLY_DEFAULT = frozenset({DEFAULT_PROFILE})  # where runs are no pods


def unknown_profile(spec: Spec, profiles: frozenset[str], *, field: str = "cluster.profile") -> Sequence[Violation]:
    """What is wrong with the spec's profile; nothing in a good one."""
    if spec.cluster.profile in profiles:
        return ()
    there = ", ".join(sorted(profiles))
    return [Violation(field=field, message=f'"{spec.cluster.profile}" is not a profile of this service; there are: {there}')]
