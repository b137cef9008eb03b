"""Checks profiles of pods: operators configure them, specs name one. Pure."""

from collections.abc import Sequence

from lorafleet.errors import Violation
from lorafleet.spec import DEFAULT_PROFILE, ClusterSpec

ONLY_DEFAULT = frozenset({DEFAULT_PROFILE})  # where runs are no pods


def unknown_profile(cluster: ClusterSpec, profiles: frozenset[str], *, field: str = "cluster.profile") -> Sequence[Violation]:
    """What is wrong with a spec's profile; nothing in a good one."""
    if cluster.profile in profiles:
        return ()
    there = ", ".join(sorted(profiles))
    return [Violation(field=field, message=f'"{cluster.profile}" is not a profile of this service; there are: {there}')]
