"""The backend alone against a real API server and a real KubeRay. Each test has a namespace of its own, and the backend calls
as a service account that may do what the chart's Role grants and nothing else.

`make test-k8s` sets LORAFLEET_TEST_K8S, once there is a cluster; without it nothing here is collected.
"""

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.backends.kuberay.api import Api
from tests.k8s.apart import locked
from tests.k8s.backend.cluster import Cluster

if "LORAFLEET_TEST_K8S" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A namespace under PodSecurity `restricted`, and the backend's kubeconfig. Nobody drains a node meanwhile."""
    with locked("nodes", shared=True):
        admin = Api()
        cluster = Cluster(admin, f"backend-{secrets.token_hex(4)}", tmp_path)
        await cluster.create()
        yield cluster
        await cluster.remove()
        await admin.close()
