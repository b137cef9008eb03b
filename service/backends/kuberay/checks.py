"""Checks what must be in order before runs can go to this cluster: KubeRay's API, new enough, and our rights. Each answer says what to
do."""

import asyncio
from collections.abc import Sequence

from lorafleet.errors import LorafleetError
from service.backends.kuberay.access import reviews, told
from service.backends.kuberay.api import Api, ApiRefusal
from service.backends.kuberay.config import KuberayConfig
from service.backends.kuberay.objects import AccessReview, ApiResourceList, OpenApi, Schema

AT_ONCE = 20  # questions that the API server is asked
NEEDED = "KubeRay 1.6"
# Fields of a RayJob that we set, by path in the schema's `spec`. The newest of them came with NEEDED.
FIELDS = (
    ("submissionMode",),
    ("backoffLimit",),
    ("preRunningDeadlineSeconds",),
    ("ttlSecondsAfterFinished",),
    ("clusterSelector",),
    ("rayClusterSpec", "authOptions"),
)


class NotInOrder(LorafleetError):
    """The cluster cannot take runs as it is. The message names everything that is wrong."""

    reason = "KUBERNETES_NOT_READY"


async def check(api: Api, config: KuberayConfig, granted: set[str]) -> None:
    """Raises NotInOrder, and Unavailable when the API server is away. `granted` is `rights`'."""
    wrong = [*await kuberay(api), *await rights(api, config, granted)]
    if wrong:
        raise NotInOrder("\n".join(["this cluster cannot take runs yet", *(f"  {each}" for each in wrong)]))


async def kuberay(api: Api) -> list[str]:
    """Whether its API is there and new enough."""
    missing = f"the API ray.io/v1 is not there; install {NEEDED} or newer: its CustomResourceDefinitions, and its operator"
    try:
        found: ApiResourceList = await api.get("/apis/ray.io/v1")
    except ApiRefusal as error:
        if error.status == 404:
            return [missing]
        raise
    if not any(resource["name"] == "rayjobs" for resource in found.get("resources", [])):
        return [missing]
    lacking = lacks(await api.get("/openapi/v3/apis/ray.io/v1"))
    if not lacking:
        return []
    return [f"the CustomResourceDefinition of RayJob is too old: it has no {', '.join(lacking)}; install {NEEDED} or newer"]


def lacks(openapi: OpenApi) -> list[str]:
    """The fields of FIELDS that the RayJob of these schemas does not have. Pure."""
    unknown: Schema = {}
    schema = next((each for name, each in openapi["components"]["schemas"].items() if name.endswith(".RayJob")), unknown)
    spec = schema.get("properties", {}).get("spec", unknown)
    return [f"spec.{'.'.join(path)}" for path in FIELDS if not _has(spec, path)]


def _has(schema: Schema, path: Sequence[str]) -> bool:
    for name in path:
        found = schema.get("properties", {}).get(name)
        if found is None:
            return False
        schema = found
    return True


async def rights(api: Api, config: KuberayConfig, granted: set[str]) -> list[str]:
    """The rules that we miss where runs live. What was found granted is added to `granted` and not asked again: many namespaces
    are many questions, and a try that is cut off is not to have been for nothing."""
    asked = [review for namespace in config.namespaces for review in reviews(config, namespace) if told(review) not in granted]
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(review: dict[str, str]) -> None:
        async with turns:
            if await _is_allowed(api, review):
                granted.add(told(review))

    await asyncio.gather(*map(ask, asked))
    return [f"the service account may not: {told(review)}" for review in asked if told(review) not in granted]


async def _is_allowed(api: Api, review: dict[str, str]) -> bool:
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": review}}
    answer: AccessReview = await api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    return bool(answer.get("status", {}).get("allowed"))
