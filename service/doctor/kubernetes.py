"""Checks what --backend kuberay needs of its cluster: the configuration file, the API server, KubeRay's API, and our rights there."""

from collections.abc import Sequence
from pathlib import Path

from lorafleet.errors import InvalidInput, LorafleetError, Unavailable
from service.backends.kuberay import checks
from service.backends.kuberay.api import Api
from service.backends.kuberay.config import KuberayConfig, load
from service.doctor.findings import Finding, failed, ok

NAME = "Kubernetes"


async def check_kubernetes(path: Path | None) -> Sequence[Finding]:
    """Each step needs the one before."""
    if path is None:
        return [failed(NAME, "no --kuberay-config", "name the file that says how runs are started")]
    try:
        config = load(path)
    except InvalidInput as error:
        return [failed(NAME, error.message, "fix the file; lorafleet serve does not start with it")]
    api = Api()
    try:
        return await _cluster(api, config)
    except Unavailable as error:
        todo = "set KUBECONFIG, or run in a pod with a service account; then check that the API server is up and lets this machine in"
        return [failed(NAME, error.message, todo)]
    except LorafleetError as error:
        return [failed(NAME, error.message, "see the message")]
    finally:
        await api.close()


async def _cluster(api: Api, config: KuberayConfig) -> Sequence[Finding]:
    wrong = await checks.kuberay(api)
    missing = await checks.rights(api, config, set())
    where = ", ".join(config.namespaces)
    return [
        *(failed(NAME, each, "runs cannot be launched before that") for each in wrong),
        *(failed(NAME, each, "add the rule to the Role of that namespace; the chart's has all of them") for each in missing),
        *([] if wrong else [ok(NAME, f"{api.host} answers, with KubeRay's API new enough")]),
        *([] if missing else [ok(NAME, f"everything that runs need is granted in {where}")]),
    ]
