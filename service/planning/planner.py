"""Prepares specs for the packing planner, and plans for users."""

import asyncio
import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

from lorafleet import objectives, work
from lorafleet.catalog import FAMILIES, METHODS
from lorafleet.catalog.method import INITIALIZATION
from lorafleet.errors import InvalidSpec, Violation
from lorafleet.spec import ClusterSpec, Spec
from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.work import WorkSpec
from service.control import packing
from service.control.compatibility import Cluster, PackKey, WarmKey
from service.control.memory import FP32_BYTES, Ask, Footprint, footprint
from service.control.packing import Candidate, Pack, PackLimits, Plan, Refusal, Sharing
from service.planning.base_shapes import ShapeCache, TenantBase

READ_WITHIN_S = 15.0  # bases that take longer are unknown to the plan
MAX_FOOTPRINTS = 10_000
SLICE = 500  # specs that are looked at before other calls get their turn


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the server allows packs."""

    limits: PackLimits = field(default_factory=PackLimits)
    num_free_runs: int = 1  # of an idle service
    isolated_tenants: frozenset[str] = frozenset()  # never in one process with another tenant, whatever their specs say


class Planner:
    """Plans packs of specs."""

    def __init__(self, shapes: ShapeCache, policy: Policy) -> None:
        self.shapes = shapes
        self.policy = policy
        self._footprints: dict[tuple[TenantBase, Ask], Footprint | None] = {}  # thousands of jobs ask for a handful of different ones

    async def plan(self, tenant: str, specs: Sequence[Spec], store_credentials: str = "") -> pb.PlanBatchResponse:
        """What would become of such jobs on an idle service. Raises InvalidSpec with every item that fits no worker."""
        await self.shapes.read({(tenant, base_of(spec, store_credentials)) for spec in specs}, READ_WITHIN_S)
        if unfit := [(index, why) for index, spec in enumerate(specs) if (why := self.shapes.why_not(base_of(spec, store_credentials)))]:
            raise InvalidSpec([Violation(field=f"items[{index}]", message=why) for index, why in unfit])
        queue: list[Candidate] = []
        for start in range(0, len(specs), SLICE):
            part = enumerate(specs[start : start + SLICE], start=start)
            queue += [self.candidate(str(index), tenant, spec, order=index, store_credentials=store_credentials) for index, spec in part]
            await asyncio.sleep(0)
        plan = await asyncio.to_thread(packing.plan, queue, self.policy.limits, self.policy.num_free_runs)
        if plan.refusals:
            raise InvalidSpec([Violation(field=f"items[{refusal.uid}]", message=refusal.message) for refusal in plan.refusals])
        return _message(plan, self.policy.limits)

    def unfit(self, job: Candidate, store_credentials: str) -> Refusal | None:
        """Of a job on a base that is known not to be trained."""
        why = self.shapes.why_not(base_in(job.key.warm, store_credentials))
        return None if why is None else Refusal(uid=job.uid, message=why, reason=objectives.REASON)

    def candidate(
        self,
        uid: str,
        tenant: str,
        spec: Spec,
        *,
        order: int,
        submitted_s: float = 0.0,
        store_credentials: str = "",
    ) -> Candidate:
        """The spec as the planner sees it, with what is known of its base now."""
        return Candidate(
            uid=uid,
            tenant=tenant,
            key=key_of(spec, store_credentials, self.shapes.family(base_of(spec, store_credentials))),
            sharing=sharing_of(tenant, spec, self.policy.isolated_tenants),
            max_steps=spec.training.max_steps,
            footprint=self._footprint(spec, store_credentials),
            priority=spec.scheduling.priority,
            order=order,
            submitted_s=submitted_s,
            lasts_s=math.inf if spec.scheduling.max_run_time_s is None else spec.scheduling.max_run_time_s,
            preemptible=spec.scheduling.preemptible,
            alone=spec.why_alone,
        )

    def other_candidate(
        self, uid: str, tenant: str, spec: WorkSpec, *, kind: str, order: int, submitted_s: float = 0.0, store_credentials: str = ""
    ) -> Candidate:
        """Work that is not training: each piece has a run of its own, and warm workers of its kind take one after another."""
        scheduling, base = spec.scheduling, spec.base_model
        warm = WarmKey(
            base_uri=base.uri,
            base_parts=tuple(sorted(base.part_uris.items())),
            family=base.family or "",
            precision=spec.precision,
            cluster=cluster_of(spec.cluster),
            store_credentials=store_credentials,
            kind=kind,
        )
        return Candidate(
            uid=uid,
            tenant=tenant,
            key=PackKey(warm=warm, resolution=None, bucketing=False, accumulation_steps=1),
            sharing=allowed_sharing(tenant, Sharing(scheduling.sharing), self.policy.isolated_tenants),
            max_steps=spec.size,
            footprint=None,
            priority=scheduling.priority,
            order=order,
            submitted_s=submitted_s,
            lasts_s=math.inf if scheduling.max_run_time_s is None else scheduling.max_run_time_s,
            preemptible=scheduling.preemptible,
            alone=f"a {work.of(kind).one} has its run to itself",
        )

    def _footprint(self, spec: Spec, store_credentials: str) -> Footprint | None:
        where = base_of(spec, store_credentials)
        base, family = self.shapes.known(where), self.shapes.family(where)
        if base is None or family is None:
            return None
        question = (where, _ask(spec, family))
        if question not in self._footprints:
            if len(self._footprints) >= MAX_FOOTPRINTS:
                self._footprints.clear()
            self._footprints[question] = footprint(base, question[1])
        return self._footprints[question]


def base_of(spec: Spec, store_credentials: str = "") -> TenantBase:
    return TenantBase(spec.base_model.uri, store_credentials, spec.base_model.family, parts_of(spec))


def base_in(warm: WarmKey, store_credentials: str = "") -> TenantBase:
    return TenantBase(warm.base_uri, store_credentials, warm.family or None, warm.base_parts)


def parts_of(spec: Spec) -> tuple[tuple[str, str], ...]:
    """(part, URI) of the parts that are not the base's own."""
    return tuple(sorted(spec.base_model.part_uris.items()))


def key_of(spec: Spec, store_credentials: str = "", family: str | None = None) -> PackKey:
    """What it must have in common with the others of a pack. `family`: its base's, as far as it is known."""
    return PackKey(
        warm=WarmKey(
            base_uri=spec.base_model.uri,
            base_parts=parts_of(spec),
            family=spec.base_model.family or family or "",
            precision=spec.training.precision,
            cluster=cluster_of(spec.cluster),
            store_credentials=store_credentials,
        ),
        resolution=max(spec.dataset.resolutions, default=spec.dataset.resolution),
        smaller_resolutions=tuple(sorted(spec.dataset.resolutions)[:-1]),
        bucketing=spec.dataset.aspect_ratio_bucketing,
        accumulation_steps=spec.training.gradient_accumulation_steps,
        clip_skip=spec.base_model.clip_skip,
        compiles=spec.training.compile,
        recomputes=spec.training.gradient_checkpointing,
        text_precision=spec.training.text_precision or "",
    )


def sharing_of(tenant: str, spec: Spec, isolated_tenants: Collection[str]) -> Sharing:
    """What the spec wants, but never more than the server allows its tenant."""
    return allowed_sharing(tenant, Sharing(spec.scheduling.sharing), isolated_tenants)


def allowed_sharing(tenant: str, wanted: Sharing, isolated_tenants: Collection[str]) -> Sharing:
    return Sharing.TENANT if wanted is Sharing.ANYONE and tenant in isolated_tenants else wanted


def cluster_of(cluster: ClusterSpec) -> Cluster:
    return Cluster(
        num_workers=cluster.num_workers,
        cpus_per_worker=cluster.cpus_per_worker,
        gpus_per_worker=cluster.gpus_per_worker,
        memory_gib_per_worker=cluster.memory_gib_per_worker,
        zero_stage=cluster.zero_stage,
        offload=cluster.offload,
        profile=cluster.profile,
    )


def _ask(spec: Spec, family: str) -> Ask:
    return Ask(
        family=family,
        precision=spec.training.precision,
        text_precision=spec.text_precision.name,
        method=spec.adapter.method,
        rank=spec.adapter.rank,
        target_modules=()
        if spec.textual_inversion.alone
        else spec.adapter.target_modules or FAMILIES.get(family).preset(spec.adapter.targets),
        resolution=max(spec.dataset.resolutions, default=spec.dataset.resolution),
        smaller_resolutions=tuple(sorted(spec.dataset.resolutions)[:-1]),
        micro_batch_size=spec.training.micro_batch_size * (2 if spec.dataset.regularization is not None else 1),
        optimizer=spec.training.optimizer,
        text_encoder=spec.adapter.text_encoder,
        factor=spec.adapter.factor,
        recomputes=spec.training.gradient_checkpointing,
        samples_latents=spec.objective.latents == "sampled",
        keeps_average=spec.training.ema_decay is not None,
        overrides=tuple(each for each in spec.adapter.overrides if each.rank is not None),
        subtracts=_subtracts(spec),
        bank=_bank_of(spec),
    )


def _subtracts(spec: Spec) -> bool:
    return spec.adapter.initialization in METHODS.get(spec.adapter.method).subtracted


def _bank_of(spec: Spec) -> Hashable:
    """Equal only where the trainer stacks adapters in one bank, side by side in a pass. (It may do so for some that differ here, too.)"""
    initialization = spec.adapter.initialization if _subtracts(spec) else INITIALIZATION
    stacked = spec.adapter.model_copy(update={"alpha": None, "initialization": initialization, "start": None})
    training = spec.training
    rates = (training.optimizer, training.ema_decay is not None, training.lora_plus_ratio is not None)
    inversion = spec.textual_inversion
    return (stacked, *rates, training.micro_batch_size, inversion.num_vectors, inversion.alone)


def _message(plan: Plan, limits: PackLimits) -> pb.PlanBatchResponse:
    known = [limit for pack in plan.packs if (limit := packing.memory_limit_bytes(pack.key, limits)) is not None]
    return pb.PlanBatchResponse(packs=[_packed(pack) for pack in plan.packs], memory_limit_bytes=min(known, default=0))


def _packed(pack: Pack) -> pb.PlannedPack:
    alone, footprints = pack.members[0].alone, pack.footprints or []
    return pb.PlannedPack(
        items=sorted(int(member.uid) for member in pack.members),
        memory_bytes=pack.memory_bytes,
        arithmetic=pack.arithmetic,
        key=f"{pack.key}; trains alone: {alone}" if alone else str(pack.key),
        closed_by=pack.closed_by.value,
        adapter_bytes=sum(each.num_adapter_params for each in footprints) * FP32_BYTES,
        picture_bytes=max((each.picture_bytes for each in footprints), default=0),
        caption_bytes=max((each.caption_bytes for each in footprints), default=0),
    )
