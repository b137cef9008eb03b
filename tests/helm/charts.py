"""The chart as helm renders it: objects as plain values."""

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm/lorafleet"
VALUES = REPOSITORY / "tests/helm/values"
SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))
RELEASE = NAMESPACE = "lorafleet"

Object = dict[str, Any]


@cache
def tool(name: str) -> str:
    """Path of a program that a script of ours gets."""
    ran = subprocess.run([REPOSITORY / f"scripts/get-{name}.sh"], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def helm_template(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [tool("helm"), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.34.0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@cache
def rendered(values: str, *arguments: str) -> tuple[Object, ...]:
    """What one value set makes."""
    ran = helm_template("--values", str(VALUES / f"{values}.yaml"), *arguments)
    assert ran.returncode == 0, ran.stderr
    return tuple(each for each in yaml.safe_load_all(ran.stdout) if each)


def refusal(*arguments: str, values: str | None = "dev") -> str:
    """What helm says of values that it does not take."""
    ran = helm_template(*(("--values", str(VALUES / f"{values}.yaml")) if values else ()), *arguments)
    assert ran.returncode != 0, "these values were taken"
    return ran.stderr


def violations(objects: Iterable[Object], file: Path) -> str:
    """What kubeconform says against them; nothing when they are as Kubernetes' and the CRDs' schemas have them."""
    file.write_text(yaml.safe_dump_all(objects))
    schemas = f"{REPOSITORY}/tests/helm/schemas/{{{{.ResourceKind}}}}.json"
    command = [tool("kubeconform"), "-strict", "-schema-location", schemas, str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def of_kind(kind: str, objects: tuple[Object, ...]) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def named(kind: str, name: str, objects: tuple[Object, ...]) -> Object:
    (found,) = [each for each in of_kind(kind, objects) if each["metadata"]["name"] == name]
    return found


@dataclass(frozen=True)
class Pod:
    """A pod, or what a Deployment or a Job makes pods from."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(objects: tuple[Object, ...]) -> Iterator[Pod]:
    for each in objects:
        if each["kind"] in {"Deployment", "Job", "Pod"}:
            template = each if each["kind"] == "Pod" else each["spec"]["template"]
            yield Pod(each["metadata"]["name"], each["metadata"]["namespace"], template["metadata"]["labels"], template["spec"])


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """As Kubernetes matches labels. Knows matchLabels alone, and says so."""
    assert set(selector) <= {"matchLabels"}, selector
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())


def env_of(container: Object) -> dict[str, Any]:
    """Names to values, or to where a value comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def control_plane(objects: tuple[Object, ...]) -> Object:
    """Its container."""
    return named("Deployment", RELEASE, objects)["spec"]["template"]["spec"]["containers"][0]
