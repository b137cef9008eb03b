"""What of a style is kept: its checkpoints on the way, its artifact at the end. Every function is collective."""

import logging
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from trainer import artifact, checkpoint
from trainer.adapters import beginnings, plain_lora, tokens
from trainer.adapters.plain_lora import PlainLora
from trainer.checkpoint import Checkpoint
from trainer.pack.member import Member
from trainer.pack.state import PackState
from trainer.tracing import span

log = logging.getLogger("lorafleet.pack")


def state_of(pack: PackState, member: Member) -> Checkpoint:
    """Everything that the member needs to resume. Raises RunFailed for non-finite weights, which are never saved."""
    bank, slot = pack.place(member)
    layout = pack.engine.banks[bank].layout
    weights = layout.named(pack.engine.weights(bank, slot))
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise member.not_finite(f"the adapter's weights are not finite after step {member.step}")
    moments: dict[str, Tensor] = {}
    for key, kept in pack.engine.moments(bank, slot).items():
        if kept.shape == (layout.size,):
            moments |= {f"{key}.{name}": tensor for name, tensor in layout.named(kept).items()}
        else:
            moments[key] = kept.contiguous()
    if (began := pack.engine.banks[bank].began) is not None:
        moments |= {f"{beginnings.KEY}.{name}": tensor for name, tensor in layout.named(began[slot].cpu()).items()}
    return Checkpoint(member.progress, weights, moments)


def save_checkpoint(pack: PackState, member: Member) -> None:
    saved = state_of(pack, member)
    pack.group.on_first(partial(checkpoint.write, member.checkpoints, saved, job=member.job, keep=member.spec.checkpointing.keep))
    member.tell(checkpoint_step=member.step)
    if member.metrics is not None:
        member.metrics.upload()


def commit(pack: PackState, member: Member) -> None:
    """The artifact, and word of it to the control plane."""
    with pack.judged(member):
        state = state_of(pack, member)
    start = f"{beginnings.KEY}."
    began = {name.removeprefix(start): tensor for name, tensor in state.moments.items() if name.startswith(start)}
    weights = beginnings.named_plainly(state.weights, began or None)
    pack.group.on_first(partial(_commit, pack, member, weights))


def _commit(pack: PackState, member: Member, weights: Mapping[str, Tensor]) -> None:
    """Only on rank 0."""
    member.tell(phase="exporting")
    pack.must_stop(member)  # raises when another attempt has taken over: then this one writes nothing
    member.close_metrics()
    samples = member.step if member.spec.validation.prompts else None
    with span("export", job=member.job):
        committed = artifact.commit(member.told_style, weights, member.progress, samples, _plain(pack, member, weights))
    log.info("artifact committed after step %d", member.step)
    if pack.reporter is not None:
        pack.reporter.succeeded(member.job, member.step, committed)


def _plain(pack: PackState, member: Member, weights: Mapping[str, Tensor]) -> PlainLora | None:
    """The plain LoRA nearest to the adapter, where the spec asks for one: the frozen layers that it is of are in memory here."""
    rank, adapter = member.spec.output.plain_lora_rank, tokens.apart(weights)[0]
    return None if rank is None else plain_lora.nearest(adapter, member.spec.adapter, rank, pack.model.layers_of(member.kind))
