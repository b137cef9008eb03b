"""The scripts of deploy/ where something is missing, and the few lines that only kind or minikube get to see.

Neither kind nor minikube runs without Docker: programs by their names write down what they were asked. What follows once there is
a cluster is tested on a real one, by tests/k8s.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM = "/usr/bin:/bin"


class Machine:
    """A PATH with some programs, each of which notes its arguments."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes = folder / "notes"
        self.environment: dict[str, str] = {}

    def has(self, name: str, says: str = "", status: int = 0) -> None:
        """`kubectl version` fails: there is no cluster, and install.sh, which comes last, ends at once."""
        program = self._folder / name
        lines = ["#!/bin/sh", f'echo "{name} $*" >>"{self._notes}"', '[ "$1" != version ] || exit 1', says and f"echo {says}"]
        program.write_text("\n".join([*lines, f"exit {status}", ""]))
        program.chmod(0o755)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self._folder}:{SYSTEM}", "HOME": str(self._folder), **self.environment}
        return subprocess.run([REPOSITORY / script], env=environment, capture_output=True, text=True, timeout=60, check=False)

    @property
    def asked(self) -> list[str]:
        return self._notes.read_text().splitlines() if self._notes.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    if any((Path(folder) / "docker").exists() for folder in SYSTEM.split(":")):
        pytest.skip("this machine has Docker itself")
    return Machine(tmp_path)


@pytest.mark.parametrize("script", ["deploy/kind/up.sh", "deploy/minikube/up.sh"])
def test_without_docker_it_says_so_and_does_nothing(machine: Machine, script: str):
    machine.has("kubectl")
    ran = machine.run(script)
    assert (ran.returncode, machine.asked) == (2, [])
    assert "docker is needed" in ran.stderr


def test_an_engine_that_does_not_answer_is_told(machine: Machine):
    machine.has("docker", status=1)
    ran = machine.run("deploy/kind/up.sh")
    assert ran.returncode == 2
    assert "its engine does not answer" in ran.stderr


@pytest.mark.parametrize("program", ["kind", "minikube"])
def test_without_kind_or_minikube_it_says_where_to_have_it(machine: Machine, program: str):
    machine.has("docker")
    ran = machine.run(f"deploy/{program}/up.sh")
    assert ran.returncode == 2
    assert f"{program} is needed: https://" in ran.stderr


def test_kind_makes_the_cluster_and_loads_the_images_into_it(machine: Machine):
    for name in ("docker", "kind"):
        machine.has(name)
    machine.has("kubectl", says="kind-mine")
    machine.environment = {"KIND_CLUSTER": "mine", "DEV_IMAGES": "no"}
    ran = machine.run("deploy/kind/up.sh")
    assert "no cluster answers" in ran.stderr, "that is where it ends"
    config = REPOSITORY / "deploy" / "kind" / "cluster.yaml"
    assert f"kind create cluster --name mine --config {config} --wait 120s" in [_plain(line) for line in machine.asked]
    for target in ("service", "trainer"):
        [build] = [line for line in machine.asked if line.startswith("docker build") and f"--target {target} " in line]
        image = re.search(rf"local/lorafleet-{target}:[0-9a-f]{{12}}", build)
        assert image, "a tag of its own for each content"
        assert f"kind load docker-image {image[0]} --name mine" in machine.asked
        assert ("--build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu" in build) is (target == "trainer")
        assert re.search("--build-arg REVISION=[0-9a-f]{40}", build)


def test_torch_for_gpus_is_taken_where_it_is_asked_for(machine: Machine):
    for name in ("docker", "kind"):
        machine.has(name)
    machine.has("kubectl", says="kind-mine")
    machine.environment = {"DEV_IMAGES": "no", "TORCH_INDEX": ""}
    machine.run("deploy/kind/up.sh")
    assert not [line for line in machine.asked if "TORCH_INDEX" in line]


def test_a_kind_cluster_that_is_there_is_kept(machine: Machine):
    machine.has("docker")
    machine.has("kind", says="lorafleet")
    machine.has("kubectl")
    machine.run("deploy/kind/up.sh")
    assert not [line for line in machine.asked if line.startswith("kind create")]


def test_minikube_loads_the_images_into_its_profile(machine: Machine):
    for name in ("docker", "minikube", "kubectl"):
        machine.has(name)
    machine.environment = {"CPUS": "6", "DEV_IMAGES": "no", "TAG": "mine"}
    machine.run("deploy/minikube/up.sh")
    assert "minikube start --driver=docker --cpus=6 --memory=12g --cni=calico" in machine.asked
    assert "minikube image load local/lorafleet-service:mine --profile lorafleet" in machine.asked


def test_a_minikube_cluster_is_known_by_its_nodes_whatever_its_profile_is_called(machine: Machine):
    for name in ("docker", "minikube"):
        machine.has(name)
    machine.has("kubectl", says="lorafleet")
    machine.environment = {"DEV_IMAGES": "no", "TARGETS": "service"}
    assert machine.run("deploy/build.sh").returncode == 0
    assert "kubectl get nodes --selector minikube.k8s.io/name --output name" in machine.asked
    assert "minikube image load local/lorafleet-service:test --profile lorafleet" in machine.asked


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("deploy/kind/down.sh", "kind delete cluster --name lorafleet"),
        ("deploy/minikube/down.sh", "minikube delete --profile lorafleet"),
    ],
)
def test_down_deletes_the_cluster(machine: Machine, script: str, command: str):
    machine.has(command.partition(" ")[0])
    assert machine.run(script).returncode == 0
    assert machine.asked == [command]


def test_install_without_a_cluster_says_so(machine: Machine):
    machine.has("kubectl")
    ran = machine.run("deploy/install.sh")
    assert ran.returncode == 2
    assert "no cluster answers" in ran.stderr


def test_an_install_that_breaks_off_leaves_no_key_and_no_token_behind(machine: Machine, tmp_path: Path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    machine.environment = {"TMPDIR": str(temporary), "BUILD": str(tmp_path / "build")}
    machine.has("kubectl")
    assert machine.run("deploy/install.sh").returncode == 2
    assert not list(temporary.iterdir())


def test_the_tests_on_a_cluster_never_pass_without_one(machine: Machine):
    machine.environment = {"ONENODE": str(REPOSITORY / "no-such-script")}
    ran = machine.run("scripts/test-k8s.sh")
    assert ran.returncode == 2
    assert "Nothing was tested" in ran.stderr

    machine.has("kubectl")
    machine.environment = {"KUBECONFIG": os.devnull}
    ran = machine.run("scripts/test-k8s.sh")
    assert ran.returncode == 2
    assert "does not answer. Nothing was tested" in ran.stderr


def _plain(line: str) -> str:
    """With the paths that scripts put together made straight."""
    return " ".join(str(Path(part).resolve()) if "/.." in part or part.startswith("/") else part for part in line.split())
