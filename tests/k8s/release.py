"""Installs and removes the release that the tests ask, by the scripts and commands of docs/kubernetes.md."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.kubectl import KubectlFailed, apply, get, kubectl

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALL_S = 900
VOLUMES = ("minio", "postgresql")
TENANTS = ("acme", "beta")  # with namespaces and store credentials of their own, beside the default one
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Release:
    """Where it is, and what it is made of."""

    namespace: str
    runs_namespace: str
    build: Path  # certificates and the token
    service_image: str
    trainer_image: str
    volumes_dir: Path | None  # on the one node, which is this machine; None: the cluster makes volumes itself

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Release":
        namespace = environment.get("NAMESPACE", "lorafleet")
        return cls(
            namespace=namespace,
            runs_namespace=environment.get("RUNS_NAMESPACE", "lorafleet-runs"),
            build=REPOSITORY / "build" / "test-k8s" / namespace,
            service_image=environment.get("SERVICE_IMAGE", "local/lorafleet-service:test"),
            trainer_image=environment.get("FAST_TRAINER_IMAGE", "local/lorafleet-fast-trainer:test"),
            volumes_dir=Path(volumes) / namespace if (volumes := environment.get("VOLUMES_DIR")) else None,
        )

    def namespace_of(self, tenant: str) -> str:
        """Where that tenant's runs live."""
        return f"{self.runs_namespace}-{tenant}" if tenant in TENANTS else self.runs_namespace

    @property
    def namespaces(self) -> tuple[str, ...]:
        return (self.namespace, self.runs_namespace, *map(self.namespace_of, TENANTS))

    def is_there(self) -> bool:
        try:
            get("deployment", namespace=self.namespace, name="lorafleet")
        except KubectlFailed:
            return False
        return (self.build / "token").is_file()

    def install(self, *options: str) -> None:
        """Raises CalledProcessError; what the script said is on stderr."""
        if self.volumes_dir is not None and not self.is_there():
            shutil.rmtree(self.volumes_dir, ignore_errors=True)  # of a run that was killed, with another password
        self._make_volumes()
        self._make_tenants_namespaces()
        self.build.mkdir(parents=True, exist_ok=True)
        values = Path(__file__).with_name("values.yaml")
        tenants = [
            option
            for tenant in TENANTS
            for option in (
                *("--set", f"runs.tenants.{tenant}.namespace={self.namespace_of(tenant)}"),
                *("--set", f"runs.tenants.{tenant}.storeSecret={tenant}-store"),
            )
        ]
        command = [REPOSITORY / "deploy" / "install.sh", "--values", values, *tenants, *options]
        subprocess.run(command, check=True, timeout=INSTALL_S, env={**os.environ, **self._environment()}, stdout=sys.stderr)

    def helm(self, *arguments: str, timeout_s: float = 600) -> str:
        """Raises CalledProcessError with its output."""
        helm = subprocess.run([REPOSITORY / "scripts" / "get-helm.sh"], check=True, capture_output=True, text=True).stdout.strip()
        ran = subprocess.run(
            [helm, *arguments, "--namespace", self.namespace], capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert ran.returncode == 0, f"helm {' '.join(arguments)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def remove(self) -> None:
        self.helm("uninstall", "lorafleet", "--wait")
        kubectl("delete", "namespace", *self.namespaces, "--wait=true", "--ignore-not-found", timeout_s=300)
        if self.volumes_dir is not None:
            for name in VOLUMES:
                kubectl("delete", "persistentvolume", f"{self.namespace}-{name}", "--ignore-not-found")
            shutil.rmtree(self.volumes_dir, ignore_errors=True)
        shutil.rmtree(self.build, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        claims = {f"{name.upper()}_CLAIM": name for name in VOLUMES} if self.volumes_dir is not None else {}
        return {
            "NAMESPACE": self.namespace,
            "RUNS_NAMESPACE": self.runs_namespace,
            "BUILD": str(self.build),
            "SERVICE_IMAGE": self.service_image,
            "TRAINER_IMAGE": self.trainer_image,
            "PYTHON": sys.executable,
            **claims,
        }

    def _make_tenants_namespaces(self) -> None:
        apply([_namespace(self.namespace_of(tenant), RESTRICTED) for tenant in TENANTS])

    def _make_volumes(self) -> None:
        """Folders of the node, so that MinIO and PostgreSQL outlive their pods where no storage class makes volumes."""
        if self.volumes_dir is None:
            return
        apply([_namespace(self.namespace, {})])
        for name in VOLUMES:
            folder = self.volumes_dir / name
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)  # the servers' user is none of this machine's
            apply([_volume(f"{self.namespace}-{name}", folder), _claim(name, self.namespace)])


def _namespace(name: str, labels: dict[str, str]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _volume(name: str, folder: Path) -> dict[str, object]:
    spec = {
        "capacity": {"storage": "5Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": name,
        "hostPath": {"path": str(folder), "type": "Directory"},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def _claim(name: str, namespace: str) -> dict[str, object]:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": f"{namespace}-{name}", "resources": {"requests": {"storage": "5Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
