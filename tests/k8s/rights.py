"""What the API server says that a ServiceAccount may do."""

import json
from collections.abc import Iterable

from deploy.kubectl import kubectl
from service.backends.kuberay.access import PolicyRule
from tests.k8s.release import Release

Rights = set[tuple[str, str, str, str]]  # API group, resource, verb, name of the only object or nothing


def control_plane(release: Release) -> str:
    return f"system:serviceaccount:{release.namespace}:lorafleet"


def of(rules: Iterable[PolicyRule]) -> Rights:
    return {(rule.group, rule.resource, verb, rule.name) for rule in rules for verb in rule.verbs}


def granted(account: str, namespace: str, release: Release) -> Rights:
    """Of `kubectl auth can-i --list`, less what every ServiceAccount of the cluster may."""
    return _listed(account, namespace) - _listed(f"system:serviceaccount:{release.namespace}:default", namespace)


def _listed(account: str, namespace: str) -> Rights:
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{account.split(':')[2]}", "system:authenticated")
    impersonated = ["--as", account, *(f"--as-group={group}" for group in groups)]
    answer = json.loads(kubectl("create", "--validate=false", "-f", "-", "-o", "json", *impersonated, stdin=json.dumps(review)))
    return {
        (group, resource, verb, name)
        for rule in answer["status"]["resourceRules"]
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or [""]
    }
