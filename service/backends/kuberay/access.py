"""What the control plane does at the API server: these verbs and no others, in the namespaces of runs.

The chart's Role grants exactly this (a test compares them), and a start asks whether it is granted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from service.backends.kuberay.config import KuberayConfig


@dataclass(frozen=True)
class PolicyRule:
    """A rule of a Role. The core group is empty; `resource` may name a subresource, as pods/log."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    name: str = ""  # of the only object that it is about; empty: all of them


RULES = (
    PolicyRule("ray.io", "rayjobs", ("get", "list", "watch", "create", "patch", "delete")),
    PolicyRule("", "pods", ("list", "watch")),
    PolicyRule("", "pods/log", ("get",)),
    PolicyRule("", "events", ("list", "watch")),
    PolicyRule("", "secrets", ("create",)),  # the tokens of runs. No patch: it answers with the whole Secret, so it reads as well
)


def rules(config: KuberayConfig, namespace: str) -> tuple[PolicyRule, ...]:
    """What it does in one namespace of runs: at a standing cluster it also changes the Secret of tokens, which is there, and has
    the kubelet bring it into the head (`apply.bring`)."""
    standing = config.standing_cluster
    if standing is None or standing.namespace != namespace:
        return RULES
    return (*RULES, *of_standing(standing.token_secret))


def of_standing(token_secret: str) -> tuple[PolicyRule, ...]:
    """What a standing cluster adds."""
    return (PolicyRule("", "secrets", ("patch",), token_secret), PolicyRule("", "pods", ("patch",)))


def reviews(config: KuberayConfig, namespace: str) -> Iterator[dict[str, str]]:
    """The questions of a SelfSubjectAccessReview, one for each verb."""
    for rule in rules(config, namespace):
        resource, _, subresource = rule.resource.partition("/")
        for verb in rule.verbs:
            question = {"namespace": namespace, "verb": verb, "group": rule.group, "resource": resource, "subresource": subresource}
            yield {**question, "name": rule.name}


def told(review: dict[str, str]) -> str:
    """The rule that is missing, as somebody would write it down."""
    resource = "/".join(part for part in (review["resource"], review["subresource"]) if part)
    group = review["group"] or '""'
    name = f" {review['name']}" if review["name"] else ""
    return f"verb {review['verb']} on {resource}{name} (API group {group}) in namespace {review['namespace']}"
