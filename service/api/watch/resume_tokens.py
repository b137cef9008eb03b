"""Names what is watched, and makes the tokens that go on with it. A token is good only for the watch that it came from."""

from dataclasses import dataclass
from typing import Any

from lorafleet.errors import InvalidInput
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.work import TRAINING
from service.api import opaque_tokens
from service.core.resource_names import invalid, parse_job, parse_tenant

_PLACE = frozenset({"tenant", "job", "batch", "adapter", "kind"})


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is watched: a tenant's jobs, or other work of one kind, one of them, or a batch's; or its adapters (`*`), or one of these."""

    tenant: str
    job_id: str = ""
    batch_uid: str = ""
    adapter: str = ""
    kind: str = TRAINING

    def values(self) -> dict[str, str]:
        batch = {"batch": self.batch_uid} if self.batch_uid else {}  # other tokens stay as they always were
        adapter = {"adapter": self.adapter} if self.adapter else {}
        kind = {} if self.kind == TRAINING else {"kind": self.kind}
        return {"tenant": self.tenant, "job": self.job_id, **batch, **adapter, **kind}


def scope_of(request: pb.WatchTrainingJobsRequest) -> Scope:
    """What a request watches. Raises InvalidInput."""
    tenant = parse_tenant(request.parent)
    if not request.name:
        return Scope(tenant=tenant)
    name = parse_job(request.name)
    if name.tenant != tenant:
        raise invalid("name", f"is not a job of {request.parent}")
    return Scope(tenant=tenant, job_id=name.job_id)


def token(scope: Scope, instance: str, seq: int, *, snapshot: bool = False) -> str:
    """Continues after `seq`; with `snapshot`, starts the snapshot again."""
    return opaque_tokens.pack({"instance": instance, "seq": seq, "snapshot": snapshot, **scope.values()})


def values(scope: Scope, resume_token: str) -> dict[str, Any]:
    """`instance`, `seq` and `snapshot` of a token. Raises InvalidInput for a token of another watch, or a forged one."""
    try:
        found = opaque_tokens.unpack(resume_token)
    except opaque_tokens.BadToken:
        raise _bad("is not one that this service gave") from None
    if {name: value for name, value in found.items() if name in _PLACE} != scope.values():
        raise _bad("belongs to another watch")
    if [type(found.get(name)) for name in ("instance", "seq", "snapshot")] != [str, int, bool]:
        raise _bad("is not a resume token")  # the checksum is not secret: the token may be forged
    return found


def _bad(problem: str) -> InvalidInput:
    return invalid("resume_token", problem, reason="BAD_RESUME_TOKEN")
