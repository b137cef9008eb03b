"""The model that the engine trains: a base's denoiser, and its text encoders where they train too, with all adapters of a pack."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lorafleet.catalog.method import is_target
from trainer.adapters import recomputation
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.layers import Adapted, AdaptedConv2d, AdaptedLinear
from trainer.adapters.layout import Kind, Layer, Layout, layout
from trainer.adapters.tokens import EmbeddingWithTokens, TokenizerOfSlots, deviation
from trainer.autocast import autocast
from trainer.compilation.protocol import Compiled
from trainer.families.protocol import Conditioning, Family, Parts
from trainer.typed_torch import named_modules


class PackModel(nn.Module):
    """Frozen parts with stacked adapters. A module's canonical path begins with the name of its part."""

    def __init__(self, family: Family, parts: Parts, *, trains_text: bool, computes: str = "fp32", recomputes: bool = False) -> None:
        """`computes`: what passes compute in (catalog.precision). `recomputes`: whether the denoiser's blocks are computed anew in the
        backward pass."""
        super().__init__()
        self.family, self.parts, self.trains_text, self.computes = family, parts, trains_text, computes
        self.banks = nn.ModuleList()
        self.compiled: Compiled | None = None  # None: training passes run eagerly, as all others do
        self._serving: Sequence[ActiveSlots] = ()
        facts = family.facts
        texts = [part.name for part in facts.text_encoders if part.target_modules] if trains_text else []
        # Those that do not train give the same for a caption at every step: that comes with the batch.
        self._texts = {name: parts[name] for name in (*texts, *(part.name for part in facts.tokenizers_of(texts)))}
        trained = [facts.denoiser.name, *texts]
        for name in trained:
            self.add_module(name, parts[name])
        self._layers = {  # layers that can be adapted, by canonical path
            f"{name}.{path}": layer
            for name in trained
            for path, layer in named_modules(self.get_submodule(name))
            if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        self._embeddings = self._found_embeddings(texts) if facts.token_keys else {}
        for each in facts.tokenizers_of(texts) if facts.token_keys else ():
            self._texts[each.name] = TokenizerOfSlots(parts[each.name], lambda: self._serving)
        self._adapted: dict[str, Adapted | EmbeddingWithTokens] = {}
        if recomputes:
            recomputation.recompute(self._denoiser, self._same_again)

    def _found_embeddings(self, texts: Sequence[str]) -> dict[str, nn.Embedding]:
        """Of their tokens, by canonical path."""
        found: dict[str, nn.Embedding] = {}
        for name in texts:
            encoder: Any = self.parts[name]
            embedding = encoder.get_input_embeddings()
            path = next(path for path, module in named_modules(encoder) if module is embedding)
            found[f"{name}.{path}"] = embedding
        return found

    def forward(
        self, active: Sequence[ActiveSlots], noisy: Tensor, times: Tensor, conditioning: Conditioning, captions: Sequence[str]
    ) -> Tensor:
        """What the denoiser predicts for rows of `active` slots. Captions of those that train text encoders are encoded anew."""
        if self.compiled is None or not torch.is_grad_enabled():
            return self._predicted(active, noisy, times, conditioning, captions)
        return self.compiled(self._predicted, active, noisy, times, conditioning, captions)

    def _predicted(
        self, active: Sequence[ActiveSlots], noisy: Tensor, times: Tensor, conditioning: Conditioning, captions: Sequence[str]
    ) -> Tensor:
        # In here and not around the engine: DeepSpeed turns off an autocast that it finds around itself.
        with self.serving(active), autocast(noisy.device.type, self.computes):
            if any(each.bank.kind.trains_text for each in active):
                conditioning = {**conditioning, **self._texts_anew(active, conditioning, captions)}
            return self.family.predict(self.parts, noisy, times, conditioning)

    def _texts_anew(self, active: Sequence[ActiveSlots], cached: Conditioning, captions: Sequence[str]) -> Conditioning:
        """All rows are encoded, so that no row's bits depend on who the others are; of slots that train no text the cache is right."""
        anew = self.family.encode_text(self._texts, captions)
        if all(each.bank.kind.trains_text for each in active):
            return anew
        rows = [each.rows(len(captions)) for each in active if each.bank.kind.trains_text]
        return {name: _with_rows(cached[name], of_name, rows) for name, of_name in anew.items()}

    @contextmanager
    def serving(self, active: Sequence[ActiveSlots]) -> Generator[None]:
        """Within it the parts compute with the adapters of these slots; also for a part alone, as a pipeline calls it."""
        for each in active:
            each.load_weights()
        with self._computing_with(active), self._hearing_of_noise(active):
            yield

    @contextmanager
    def _hearing_of_noise(self, active: Sequence[ActiveSlots]) -> Generator[None]:
        """Slots whose ranks go by noise hear of it when the denoiser does, from whoever calls it: a pass, or a pipeline step by step."""
        by_noise = [each for each in active if each.method.facts.ranks_by_noise]
        if not by_noise:
            yield
            return
        none, whole = self.family.facts.told_noise

        def hear(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            told = next((named[name] for name in ("timestep", "t") if name in named), given[1] if len(given) > 1 else None)
            shares = (torch.as_tensor(told, dtype=torch.float32).reshape(-1) - none) / (whole - none)
            for each in by_noise:
                each.see_noise(shares.clamp(0.0, 1.0).to(each.bank.scaling.device))

        handle = self._denoiser.register_forward_pre_hook(hear, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _computing_with(self, active: Sequence[ActiveSlots]) -> Generator[None]:
        before = self._serving
        self._let_serve(active)
        try:
            yield
        finally:
            self._let_serve(before)

    def _let_serve(self, active: Sequence[ActiveSlots]) -> None:
        self._serving = active
        for path, layer in self._adapted.items():
            if isinstance(layer, Adapted):
                layer.active = [each.layers[path] for each in active if path in each.layers]

    def _same_again(self) -> recomputation.SameAgain:
        return partial(self._once_more, self._serving, nullcontext if self.compiled is None else self.compiled.as_now())

    @contextmanager
    def _once_more(self, active: Sequence[ActiveSlots], compiled: recomputation.SameAgain) -> Generator[None]:
        with self._computing_with(active), compiled():
            yield

    @property
    def _denoiser(self) -> nn.Module:
        return self.parts[self.family.facts.denoiser.name]

    def layers_of(self, kind: Kind) -> dict[str, Layer]:
        """The frozen layers that adapters of a kind are put on, by canonical path."""
        if not kind.has_layers:
            return {}
        targets = self.family.facts.targets(kind.target_modules, text_encoders=kind.text_encoder)
        return {path: layer for path, layer in self._layers.items() if _is_target(path, targets)}

    def embeddings_of(self, kind: Kind) -> dict[str, nn.Embedding]:
        """The frozen embeddings that the new tokens of a kind lie beside, by canonical path."""
        return self._embeddings if kind.num_vectors else {}

    def layout_of(self, kind: Kind) -> Layout:
        return layout(kind, self.layers_of(kind), self.embeddings_of(kind))

    def add_bank(self, kind: Kind, capacity: int, *, batch_invariant: bool) -> Bank:
        """A new bank for `capacity` adapters of a kind."""
        layers = self.layers_of(kind)
        for path, layer in layers.items():
            if path not in self._adapted:
                adapted = AdaptedLinear if isinstance(layer, nn.Linear) else AdaptedConv2d
                self._adapted[path] = adapted(layer, list(self._layers).index(path))
                _put(self, path, self._adapted[path])
        bank = Bank(kind, self.layout_of(kind), capacity, batch_invariant=batch_invariant)
        for path, embedding in self.embeddings_of(kind).items():
            bank.deviations[path] = deviation(embedding)
            if path not in self._adapted:
                self._adapted[path] = EmbeddingWithTokens(embedding, path, lambda: self._serving)
                _put(self, path, self._adapted[path])
        self.banks.append(bank)
        return bank

    def tell_tokens(self, pipeline: Any) -> Any:
        """The same pipeline of diffusers; its prompts may have the new tokens of the slot that it draws with."""
        for each in self.family.facts.tokenizers if self.family.facts.token_keys else ():
            if each.name in self._texts:
                setattr(pipeline, each.name, self._texts[each.name])
        return pipeline

    def leave(self) -> None:
        """Leaves the frozen parts as they were."""
        self.strip()
        recomputation.keep(self._denoiser)
        if self.compiled is not None:
            self.compiled.leave()
        self.compiled = None

    def strip(self) -> None:
        """Removes all adapters."""
        if self.compiled is not None:
            self.compiled.let_go()
        for path in self._adapted:
            _put(self, path, self._embeddings[path] if path in self._embeddings else self._layers[path])
        self._adapted.clear()
        self.banks = nn.ModuleList()


def _with_rows(whole: Tensor, other: Tensor, rows: Sequence[slice]) -> Tensor:
    """`whole` with these rows, which lie in their order, of the other."""
    pieces: list[Tensor] = []
    done = 0
    for each in rows:
        pieces += [whole[done : each.start], other[each]]
        done = each.stop
    return torch.cat([*pieces, whole[done:]])


def _is_target(path: str, targets: Mapping[str, Sequence[str]]) -> bool:
    part, _, inner = path.partition(".")
    return is_target(inner, targets.get(part, ()))


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
