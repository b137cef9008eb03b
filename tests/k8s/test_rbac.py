"""What the control plane is granted is exactly what it uses: the API server's own list against the code's."""

import json

import pytest

from deploy.kubectl import kubectl
from service.backends.kuberay.access import RULES
from tests.k8s.release import Release

pytestmark = pytest.mark.smoke
Granted = set[tuple[str, str, str]]  # API group, resource, verb


def test_in_namespaces_of_runs_it_is_granted_what_the_code_uses_and_no_more(release: Release):
    used = {(rule.group, rule.resource, verb) for rule in RULES for verb in rule.verbs}
    for namespace in release.namespaces[1:]:
        assert _granted(_control_plane(release), namespace, release) == used


def test_elsewhere_it_is_granted_nothing(release: Release):
    for namespace in (release.namespace, "default", "kube-system"):
        assert _granted(_control_plane(release), namespace, release) == set()


def test_runs_are_granted_nothing(release: Release):
    for namespace in release.namespaces:
        assert _granted(f"system:serviceaccount:{release.runs_namespace}:lorafleet-run", namespace, release) == set()


def _control_plane(release: Release) -> str:
    return f"system:serviceaccount:{release.namespace}:lorafleet"


def _granted(account: str, namespace: str, release: Release) -> Granted:
    """Of `kubectl auth can-i --list`, less what every ServiceAccount of the cluster may."""
    return _rules(account, namespace) - _rules(f"system:serviceaccount:{release.namespace}:default", namespace)


def _rules(account: str, namespace: str) -> Granted:
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{account.split(':')[2]}", "system:authenticated")
    impersonated = ["--as", account, *(f"--as-group={group}" for group in groups)]
    answer = json.loads(kubectl("create", "--validate=false", "-f", "-", "-o", "json", *impersonated, stdin=json.dumps(review)))
    return {
        (group, resource, verb)
        for rule in answer["status"]["resourceRules"]
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
        if not rule.get("resourceNames")
    }
