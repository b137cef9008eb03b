"""What the control plane is granted is exactly what it uses: the API server's own list against the code's."""

import pytest

from service.backends.kuberay.access import RULES
from tests.k8s import rights
from tests.k8s.release import Release

pytestmark = pytest.mark.smoke


def test_in_namespaces_of_runs_it_is_granted_what_the_code_uses_and_no_more(release: Release):
    for namespace in release.namespaces[1:]:
        assert rights.granted(rights.control_plane(release), namespace, release) == rights.of(RULES)


def test_elsewhere_it_is_granted_nothing(release: Release):
    for namespace in (release.namespace, "default", "kube-system"):
        assert rights.granted(rights.control_plane(release), namespace, release) == set()


def test_runs_are_granted_nothing(release: Release):
    for namespace in release.namespaces:
        assert rights.granted(f"system:serviceaccount:{release.runs_namespace}:lorafleet-run", namespace, release) == set()
