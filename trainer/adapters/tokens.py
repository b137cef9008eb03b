"""New tokens of styles (textual inversion): how captions with them become ids, and the frozen embedding that knows their vectors.

A style's vectors are tensors of its row, as its adapter is (`layout`), one for each text encoder: (vectors, width). In ids a new token's
vector k is -1 - k. No embedding has negative ids, and CLIP's text encoders, which pool where an id is the highest (transformers'
CLIPTextModel, eos_token_id 2), then still pool at the end of the text, as kohya's trainer, AUTOMATIC1111 and ComfyUI do.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorafleet.errors import RunFailed
from lorafleet.spec_tokens import TokenSpec
from trainer.adapters.bank import ActiveSlots
from trainer.adapters.layout import VECTORS
from trainer.keyed import Key, Purpose

Tokens = tuple[TokenSpec, ...]
Serving = Callable[[], Sequence[ActiveSlots]]
_END = "</w>"  # of a word, in CLIP's vocabulary


class EmbeddingWithTokens(nn.Module):
    """A frozen embedding; ids below 0 are vectors of the slot that has their row."""

    def __init__(self, base: nn.Embedding, module: str, serving: Serving) -> None:
        super().__init__()
        self.base, self.module, self.serving = base, module, serving

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def forward(self, ids: Tensor) -> Tensor:
        """ids (rows, tokens) -> (rows, tokens, width)."""
        known = self.base(ids.clamp(min=0))
        pieces: list[Tensor] = []
        done = 0
        for each in self.serving():
            its = each.layers.get(self.module)
            if its is not None and VECTORS in its.weights:
                rows = each.rows(len(ids))
                vectors = its.weights[VECTORS][: each.num_served]
                pieces += [known[done : rows.start], self._with_vectors(vectors, ids[rows], known[rows])]
                done = rows.stop
        return torch.cat([*pieces, known[done:]]) if pieces else known

    def _with_vectors(self, vectors: Tensor, ids: Tensor, known: Tensor) -> Tensor:
        """`vectors`: (slots, vectors, width)."""
        slots, num_vectors, _ = vectors.shape
        first = (torch.arange(slots, device=ids.device) * num_vectors).repeat_interleave(len(ids) // slots)  # of each row's slot
        looked_up = F.embedding((-1 - ids).clamp(min=0) + first[:, None], vectors.flatten(0, 1))
        return torch.where((ids < 0)[..., None], looked_up.to(known.dtype), known)


class TokenizerWithTokens:
    """A tokenizer that knows a style's new tokens, as diffusers' `load_textual_inversion` makes it know them."""

    def __init__(self, tokenizer: Any, tokens: Tokens) -> None:
        self._tokenizer, self._tokens = copy.deepcopy(tokenizer), tokens
        self._first = len(tokenizer)
        self._tokenizer.add_tokens([name for token in tokens for name in names_of(token)])

    def __call__(self, texts: Sequence[str], **options: Any) -> Any:
        found = self._tokenizer([self._spelt_out(text) for text in texts], **options)
        ids = found["input_ids"]
        found["input_ids"] = self._ours(ids) if isinstance(ids, Tensor) else [list(map(self._our, row)) for row in ids]
        return found

    def _ours(self, ids: Tensor) -> Tensor:
        return torch.where(ids < self._first, ids, self._first - 1 - ids)

    def _our(self, number: int) -> int:
        return number if number < self._first else self._first - 1 - number

    def _spelt_out(self, text: str) -> str:
        """As diffusers' `maybe_convert_prompt` does: with a name for each vector."""
        for token in self._tokens:
            text = text.replace(token.token, " ".join(names_of(token)))
        return text


class TokenizerOfSlots:
    """In a tokenizer's place: each row of texts has the tokens of the style that it is of."""

    def __init__(self, tokenizer: Any, serving: Serving) -> None:
        self._tokenizer, self._serving = tokenizer, serving
        self._knowing: dict[Tokens, Any] = {(): tokenizer}

    def __getattr__(self, name: str) -> Any:
        """Whatever else families and pipelines ask of a tokenizer."""
        if name.startswith("_"):  # as of one that is being copied
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def __call__(self, texts: Sequence[str], **options: Any) -> Any:
        tokens = self._tokens_of_rows(len(texts))
        if len({*tokens}) <= 1:
            return self._of(tokens[0] if tokens else ())(texts, **options)
        found = self._of(())(texts, **options)
        for each in {*tokens} - {()}:
            rows = [row for row, its in enumerate(tokens) if its == each]
            for row, ids in zip(rows, self._of(each)([texts[row] for row in rows], **options)["input_ids"], strict=True):
                found["input_ids"][row] = ids
        return found

    def batch_decode(self, ids: Tensor, **options: Any) -> list[str]:
        """Of what was cut off, which pipelines tell."""
        return self._tokenizer.batch_decode(ids.clamp(min=0), **options)

    def _of(self, tokens: Tokens) -> Any:
        if tokens not in self._knowing:
            self._knowing[tokens] = TokenizerWithTokens(self._tokenizer, tokens)
        return self._knowing[tokens]

    def _tokens_of_rows(self, num_rows: int) -> list[Tokens]:
        found: list[Tokens] = [()] * num_rows
        for each in self._serving():
            rows = each.rows(num_rows)
            rows_each = (rows.stop - rows.start) // each.num_served
            for number, slot in enumerate(each.slots[: each.num_served]):
                start = rows.start + number * rows_each
                found[start : start + rows_each] = [each.bank.tokens[slot]] * rows_each
        return found


def names_of(token: TokenSpec) -> list[str]:
    """Of its vectors: `<s1>`, `<s1>_1`, `<s1>_2` (diffusers' names)."""
    return [token.token, *(f"{token.token}_{number}" for number in range(1, token.num_vectors))]


def initial_vectors(tokens: Tokens, tokenizer: Any, embedding: nn.Embedding, key: Key, name: str) -> Tensor:
    """What they begin with, (vectors, width), fp32 on the CPU. Raises RunFailed, naming the token, where the vocabulary is against it.

    `name`: keys what is drawn.
    """
    known, weight = tokenizer.get_vocab(), embedding.weight.detach()
    found: list[Tensor] = []
    for number, token in enumerate(tokens):
        field = f"textual_inversion.tokens[{number}]"
        if taken := next((each for each in names_of(token) if {each, each + _END} & known.keys()), None):
            raise _unusable(f'{field}.token: "{taken}" is in the base\'s vocabulary already: choose another, such as <{token.token}>')
        if token.initial_text.strip():
            ids = _initial_ids(token, tokenizer, field)
            found.append(_of_text(token.num_vectors, weight[torch.tensor(ids, device=weight.device)].float().cpu()))
        else:
            drawn = key.generator(Purpose.INIT, f"{name}.{number}").standard_normal((token.num_vectors, weight.shape[1]))
            found.append(torch.tensor(drawn, dtype=torch.float32) * deviation(embedding))
    return torch.cat(found)


def deviation(embedding: nn.Embedding) -> float:
    """Of all of its numbers."""
    return float(embedding.weight.detach().float().std())


def _initial_ids(token: TokenSpec, tokenizer: Any, field: str) -> list[int]:
    ids: list[int] = tokenizer(token.initial_text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    if not ids or tokenizer.unk_token_id in ids:
        raise _unusable(f'{field}.initial_text: "{token.initial_text}" has letters that the base\'s vocabulary does not know: use others')
    if len(ids) > token.num_vectors > 1:
        what = f'"{token.initial_text}" is {len(ids)} of the base\'s tokens, and num_vectors is {token.num_vectors}'
        raise _unusable(f"{field}.initial_text: {what}: use as many vectors, one (for their mean), or fewer words")
    return ids


def _of_text(num_vectors: int, weights: Tensor) -> Tensor:
    if num_vectors == 1:
        return weights.mean(dim=0, keepdim=True)
    return weights[torch.arange(num_vectors) % len(weights)]


def _unusable(message: str) -> RunFailed:
    return RunFailed(message, reason="TOKEN_NOT_USABLE")


def apart(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors by canonical name: the adapter's, and the vectors of new tokens by their text encoder's part."""
    vectors = {name.partition(".")[0]: tensor for name, tensor in weights.items() if is_vectors(name)}
    return {name: tensor for name, tensor in weights.items() if not is_vectors(name)}, vectors


def is_vectors(name: str) -> bool:
    return name.endswith(f".{VECTORS}")


def by_token(tokens: Tokens, vectors: Tensor) -> Iterator[tuple[TokenSpec, Tensor]]:
    """Each with its vectors, of those of all."""
    yield from zip(tokens, torch.split(vectors, [token.num_vectors for token in tokens]), strict=True)
