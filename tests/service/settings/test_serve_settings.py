"""Where runs execute: options that do not go together are refused, each with what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from lorafleet.errors import InvalidInput
from service.settings.serve_settings import BackendKind, parse_backend

CONFIG = "namespace: runs\nimage: registry/trainer:1\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "kuberay.yaml"
    path.write_text(CONFIG)
    return path


def test_runs_go_to_a_ray_unless_told_otherwise():
    assert parse_backend(BackendKind.RAY, None, "", "") is None


def test_runs_go_to_kubernetes_by_its_file(config: Path):
    found = parse_backend(BackendKind.KUBERAY, config, "", "s3://bucket/artifacts")
    assert found is not None
    assert found.namespace == "runs"


@pytest.mark.parametrize(
    ("kind", "has_config", "ray", "artifacts", "told"),
    [
        (BackendKind.RAY, True, "", "s3://a", "--kuberay-config is for --backend kuberay"),
        (BackendKind.KUBERAY, True, "http://ray", "s3://a", "--ray-address is for --backend ray"),
        (BackendKind.KUBERAY, False, "", "s3://a", "--kuberay-config must name the file"),
        (BackendKind.KUBERAY, True, "", "", "give --artifacts an s3:// URI"),
        (BackendKind.KUBERAY, True, "", "file:///folder", "give --artifacts an s3:// URI"),
    ],
)
def test_what_does_not_go_together_is_refused(kind: BackendKind, has_config: bool, ray: str, artifacts: str, told: str, config: Path):
    with pytest.raises(InvalidInput, match=told):
        parse_backend(kind, config if has_config else None, ray, artifacts)


def test_the_client_of_kubernetes_is_not_imported_before_it_is_needed(config: Path):
    """It takes seconds, and the control plane answers before."""
    script = f"""
import sys
import service.server.serving
from service.backends.kuberay.api import Api
from service.backends.kuberay.backend import KubeRay
from service.settings.serve_settings import *
from pathlib import Path
KubeRay(parse_backend(BackendKind.KUBERAY, Path({str(config)!r}), '', 's3://a'), Api())
print(sorted(name for name in ('kubernetes_asyncio', 'aiohttp', 'torch', 'ray') if name in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "[]", ran.stderr
