"""What refusals of the API server mean, and how requests are counted. Pure, by table."""

import pytest

from service.backends.kuberay.api import kind_of, meaning

REFUSALS = [
    (403, "Forbidden", 'rayjobs "x" is forbidden: exceeded quota: runs, requested: 1', "QUOTA_EXCEEDED", True),
    (403, "Forbidden", 'User "u" cannot create resource "rayjobs"', "KUBERNETES_FORBIDDEN", True),
    (403, "Forbidden", 'admission webhook "policy" denied the request: no', "WEBHOOK_REFUSED", False),
    (400, "", 'admission webhook "policy" denied the request: no', "WEBHOOK_REFUSED", False),
    (422, "Invalid", "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no", "WEBHOOK_REFUSED", False),
    (500, "InternalError", 'failed calling webhook "policy": connection refused', "WEBHOOK_UNREACHABLE", True),
    (401, "Unauthorized", "Unauthorized", "KUBERNETES_UNAUTHENTICATED", True),
    (404, "NotFound", 'namespaces "runs" not found', "KUBERNETES_NOT_FOUND", False),
    (409, "Conflict", "the object has been modified", "KUBERNETES_CONFLICT", True),
    (422, "Invalid", "spec.x: Invalid value", "KUBERNETES_REFUSED", False),
    (429, "TooManyRequests", "later", "KUBERNETES_UNREACHABLE", True),
    (503, "", "etcd is away", "KUBERNETES_UNREACHABLE", True),
]


@pytest.mark.parametrize(("status", "cause", "words", "reason", "retryable"), REFUSALS)
def test_a_refusal_has_a_reason_and_says_whether_to_try_again(status: int, cause: str, words: str, reason: str, retryable: bool):
    assert meaning(status, cause, words) == (reason, retryable)


PATHS = [
    ("GET", "/api/v1/namespaces/runs/pods", {}, ("list", "pods")),
    ("GET", "/api/v1/namespaces/runs/pods", {"watch": "true"}, ("watch", "pods")),
    ("GET", "/api/v1/namespaces/runs/pods/p/log", {}, ("get", "pods/log")),
    ("GET", "/apis/ray.io/v1/namespaces/runs/rayjobs/j", {}, ("get", "rayjobs")),
    ("PATCH", "/apis/ray.io/v1/namespaces/runs/rayjobs/j", {}, ("patch", "rayjobs")),
    ("DELETE", "/apis/ray.io/v1/namespaces/runs/rayjobs/j", {}, ("delete", "rayjobs")),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {}, ("create", "selfsubjectaccessreviews")),
    ("GET", "/apis/ray.io/v1", {}, ("get", "discovery")),
    ("GET", "/openapi/v3/apis/ray.io/v1", {}, ("get", "discovery")),
]


@pytest.mark.parametrize(("verb", "path", "query", "kind"), PATHS)
def test_a_request_is_counted_as_rights_name_it(verb: str, path: str, query: dict[str, str], kind: tuple[str, str]):
    assert kind_of(verb, path, query) == kind
