"""What the control plane does at the API server: these verbs and no others, in the namespaces of runs.

The chart's Role grants exactly this (a test compares them), and a start asks whether it is granted.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A rule of a Role. The core group is empty; `resource` may name a subresource, as pods/log."""

    group: str
    resource: str
    verbs: tuple[str, ...]


RULES = (
    Rule("ray.io", "rayjobs", ("get", "list", "watch", "create", "patch", "delete")),
    Rule("", "pods", ("list", "watch")),
    Rule("", "pods/log", ("get",)),
    Rule("", "events", ("list", "watch")),
    Rule("", "secrets", ("create", "patch")),  # it writes the tokens of runs and reads nobody's secrets
)


def reviews(namespace: str) -> Iterator[dict[str, str]]:
    """The questions of a SelfSubjectAccessReview, one for each verb."""
    for rule in RULES:
        resource, _, subresource = rule.resource.partition("/")
        for verb in rule.verbs:
            yield {"namespace": namespace, "verb": verb, "group": rule.group, "resource": resource, "subresource": subresource}


def told(review: dict[str, str]) -> str:
    """The rule that is missing, as somebody would write it down."""
    resource = "/".join(part for part in (review["resource"], review["subresource"]) if part)
    group = review["group"] or '""'
    return f"verb {review['verb']} on {resource} (API group {group}) in namespace {review['namespace']}"
