#!/usr/bin/env python
"""Writes tests/helm/schemas: what kubeconform holds the chart to, so that a check needs no network.

From what the projects publish, by the Go module proxy (Go must be there): Kubernetes' OpenAPI and the CRDs of others. Kept are the
kinds that the chart and the backend make, without descriptions, and strict: a field that the API server does not know is a
mistake, and so is another API version than the one that the schema is of.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = "k8s.io/kubernetes@v1.34.2"
KINDS = {
    "io.k8s.api.apps.v1": ["Deployment"],
    "io.k8s.api.batch.v1": ["Job"],
    "io.k8s.api.core.v1": [
        "ConfigMap",
        "Namespace",
        "PersistentVolumeClaim",
        "Pod",
        "ResourceQuota",
        "Secret",
        "Service",
        "ServiceAccount",
    ],
    "io.k8s.api.networking.v1": ["Ingress", "NetworkPolicy"],
    "io.k8s.api.policy.v1": ["PodDisruptionBudget"],
    "io.k8s.api.rbac.v1": ["Role", "RoleBinding"],
}
CRDS = {
    "github.com/ray-project/kuberay/ray-operator@v1.6.2": ["config/crd/bases/ray.io_rayjobs.yaml"],
    "github.com/cert-manager/cert-manager@v1.19.1": ["deploy/crds/cert-manager.io_certificates.yaml"],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ],
    "sigs.k8s.io/gateway-api@v1.4.0": [
        "config/crd/standard/gateway.networking.k8s.io_backendtlspolicies.yaml",
        "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
    ],
}
# Fields that take any shape where the API server takes two: its OpenAPI says "string" for the first, and means a number as well.
EITHER = {"io.k8s.apimachinery.pkg.util.intstr.IntOrString", "io.k8s.apimachinery.pkg.api.resource.Quantity"}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    definitions = json.loads((module(KUBERNETES) / "api/openapi-spec/swagger.json").read_text())["definitions"]
    for group, kinds in KINDS.items():
        for kind in kinds:
            write(folder, kind, of_kubernetes(definitions, f"{group}.{kind}"))
    for name, files in CRDS.items():
        for file in files:
            crd = yaml.safe_load((module(name) / file).read_text())
            write(folder, crd["spec"]["names"]["kind"], of_crd(crd))


def module(name: str) -> Path:
    """Where Go keeps the module's files."""
    ran = subprocess.run(["go", "mod", "download", "-json", name], capture_output=True, text=True, check=True, cwd=Path.home())
    return Path(json.loads(ran.stdout)["Dir"])


def write(folder: Path, kind: str, schema: dict[str, Any]) -> None:
    (folder / f"{kind.lower()}.json").write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")


def of_kubernetes(definitions: dict[str, Any], name: str) -> dict[str, Any]:
    """The kind's schema with all that it refers to."""
    needed = {each: stripped(definitions[each]) for each in sorted(reached(definitions, name))}
    for each in EITHER & needed.keys():
        needed[each] = {"type": ["string", "integer", "number"]}
    (kind,) = definitions[name]["x-kubernetes-group-version-kind"]
    pin(needed[name], "/".join(part for part in (kind["group"], kind["version"]) if part), kind["kind"])
    return {"$ref": f"#/definitions/{name}", "definitions": needed}


def reached(definitions: dict[str, Any], name: str) -> set[str]:
    """The names of all definitions that one needs, itself among them."""
    found: set[str] = set()
    left = [name]
    while left:
        if (each := left.pop()) not in found:
            found.add(each)
            left += references(definitions[each])
    return found


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(ref := schema.get("$ref"), str):
            yield ref.removeprefix("#/definitions/")
        for part in schema.values():
            yield from references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from references(part)


def of_crd(crd: dict[str, Any]) -> dict[str, Any]:
    """The schema of the version that is stored."""
    version = next(each for each in crd["spec"]["versions"] if each["storage"])
    schema = stripped(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    schema["properties"].pop("status", None)
    pin(schema, f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
    return without_pods(schema)


def pin(schema: dict[str, Any], api_version: str, kind: str) -> None:
    """Files are found by their kind alone: the rest of what an object is called is the schema's to say. (kubeconform reads them as a
    draft of JSON Schema that has no const.)"""
    schema["properties"] |= {"apiVersion": {"enum": [api_version]}, "kind": {"enum": [kind]}}
    schema["required"] = sorted({*schema.get("required", []), "apiVersion", "kind"})


def without_pods(schema: Any) -> Any:
    """A CRD's copies of Kubernetes' own pod, a megabyte each: whoever checks such an object holds its pods to that one."""
    if not isinstance(schema, dict):
        return [without_pods(part) for part in schema] if isinstance(schema, list) else schema
    if "containers" in schema.get("properties", {}).get("spec", {}).get("properties", {}):
        return {"type": "object"}
    return {name: without_pods(part) for name, part in schema.items()}


def stripped(schema: Any) -> Any:
    """Without descriptions and Kubernetes' own marks; objects take no property that is not named."""
    if not isinstance(schema, dict):
        return [stripped(part) for part in schema] if isinstance(schema, list) else schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    kept: dict[str, Any] = {}
    for name, part in schema.items():
        if name == "properties":
            kept[name] = {field: stripped(each) for field, each in part.items()}
        elif name not in {"description", "default", "example", "format"} and not name.startswith("x-kubernetes-"):
            kept[name] = stripped(part)
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not open_ended:
        kept["additionalProperties"] = False
    return kept


if __name__ == "__main__":
    main(Path(sys.argv[1]))
