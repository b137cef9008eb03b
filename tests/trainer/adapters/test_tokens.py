"""New tokens by themselves: ids that no embedding has, vectors in their places, what they begin with, and their deviation."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from torch import Tensor, nn
from transformers import CLIPTokenizer

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from lorafleet.spec import OptimizationSpec
from lorafleet.spec_tokens import TokenSpec
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.layout import VECTORS, Kind, Layout, Piece
from trainer.adapters.tokens import EmbeddingWithTokens, TokenizerOfSlots, TokenizerWithTokens, initial_vectors
from trainer.keyed import Key
from trainer.optimizers import token_deviation
from trainer.optimizers.protocol import Clipping, Row, StyleUpdate

S1, S2 = TokenSpec(token="<s1>", num_vectors=2), TokenSpec(token="my-cat")
EMBEDDING = "text_encoder.embedding"
WIDTH = 3


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return CLIPTokenizer.from_pretrained(BASE_MODEL / "tokenizer")


def bank_of(*styles: tuple[TokenSpec, ...], num_vectors: int = 3) -> Bank:
    """A style in each slot, whose vector k is all 10 (slot + 1) + k."""
    kind = Kind("lora", 1, (), False, 0.0, "adamw", num_vectors=num_vectors, has_layers=False)
    piece = Piece(EMBEDDING, VECTORS, f"{EMBEDDING}.{VECTORS}", (num_vectors, WIDTH), 0)
    bank = Bank(kind, Layout((piece,)), len(styles), batch_invariant=False)
    for number, tokens in enumerate(styles):
        vectors = torch.arange(num_vectors).float() + 10 * (number + 1)
        bank.add_style(vectors.repeat_interleave(WIDTH), 1.0, tokens=tokens)
    return bank


def options(length: int = 16) -> Mapping[str, Any]:
    return {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}


def test_a_caption_has_the_ids_that_diffusers_gives_it_and_new_tokens_such_as_no_embedding_has(tokenizer: Any):
    ours = TokenizerWithTokens(tokenizer, (S1, S2))
    theirs = CLIPTokenizer.from_pretrained(BASE_MODEL / "tokenizer")
    first = len(theirs)
    theirs.add_tokens(["<s1>", "<s1>_1", "my-cat"])
    captions = ["a red <s1> cat", "<s1>,my-cat and <s1>", "my-cats", "none", ""]
    expanded: Any = TextualInversionLoaderMixin().maybe_convert_prompt(captions, theirs)
    expected = theirs(expanded, **options()).input_ids
    assert torch.equal(ours(captions, **options()).input_ids, torch.where(expected < first, expected, first - 1 - expected))
    assert {-1, -2, -3} == {number for number in ours(captions, **options()).input_ids.flatten().tolist() if number < 0}
    assert len(tokenizer) == first, "the base's own tokenizer knows none of them"


def test_captions_are_counted_with_a_place_for_each_vector(tokenizer: Any):
    counted = TokenizerWithTokens(tokenizer, (S1,))(["a <s1>", "a"], truncation=False, verbose=False).input_ids
    assert [len(ids) for ids in counted] == [5, 3]
    assert counted[0][2:4] == [-1, -2]


def test_each_row_has_the_tokens_of_its_own_style(tokenizer: Any):
    bank = bank_of((S1, S2), (TokenSpec(token="<s2>", num_vectors=3),))
    active = [ActiveSlots(bank, [0, 1], start=1, rows_each=2)]
    of_slots = TokenizerOfSlots(tokenizer, lambda: active)
    captions = ["a <s1> <s2>"] * 6
    found = of_slots(captions, **options()).input_ids
    plain = tokenizer(captions, **options()).input_ids
    assert [sorted(number for number in row if number < 0) for row in found.tolist()] == [[], [-2, -1], [-2, -1], *[[-3, -2, -1]] * 2, []]
    assert torch.equal(found[0], plain[0])
    assert torch.equal(found[5], plain[5])
    assert of_slots.model_max_length == tokenizer.model_max_length
    assert len(of_slots.batch_decode(found)) == 6


def test_vectors_stand_in_their_rows_and_have_the_gradient_of_a_plain_embedding():
    bank, embedding = bank_of((S1, S2), (S1, S2)), nn.Embedding(5, WIDTH).requires_grad_(False)
    active = [ActiveSlots(bank, [0, 1], rows_each=2)]
    grown = EmbeddingWithTokens(embedding, EMBEDDING, lambda: active)
    active[0].load_weights()
    ids = torch.tensor([[0, -1, -3], [-1, 4, -1], [1, 2, 3], [-2, -2, 0], [0, 1, 2]])  # the last row is nobody's
    whole = nn.Parameter(torch.cat([embedding.weight, *(torch.arange(3.0)[:, None].expand(3, WIDTH) + 10 * slot for slot in (1, 2))]))
    offset = torch.tensor([0, 0, 3, 3, 0])[:, None]
    theirs = torch.nn.functional.embedding(torch.where(ids < 0, 4 - ids + offset, ids), whole)
    ours = grown(ids)
    assert torch.equal(ours, theirs)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    assert bank.flat.grad is not None
    assert whole.grad is not None
    assert torch.equal(bank.flat.grad.flatten(), whole.grad[5:].flatten())
    assert embedding.weight.grad is None


def test_without_new_tokens_an_embedding_is_what_it_was():
    embedding = nn.Embedding(5, WIDTH)
    ids = torch.tensor([[0, 4]])
    assert torch.equal(EmbeddingWithTokens(embedding, EMBEDDING, list)(ids), embedding(ids))


# What they begin with


def begun(tokenizer: Any, text: str, num_vectors: int = 1, token: str = "<s1>", seed: int = 0) -> tuple[Tensor, Tensor]:
    """And the weights of the embedding."""
    embedding = nn.Embedding(3000, WIDTH)
    nn.init.normal_(embedding.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    asked = (TokenSpec(token=token, num_vectors=num_vectors, initial_text=text),)
    return initial_vectors(asked, tokenizer, embedding, Key(seed=seed, style="s"), "name"), embedding.weight.detach()


def test_vectors_begin_with_the_tokens_of_a_text_in_turn_and_a_lone_one_with_their_mean(tokenizer: Any):
    cat, red = (tokenizer.get_vocab()[f"{word}</w>"] for word in ("cat", "red"))
    found, weight = begun(tokenizer, "red cat", num_vectors=3)
    assert torch.equal(found, weight[[red, cat, red]])
    lone, weight = begun(tokenizer, "red cat")
    assert torch.equal(lone, weight[[red, cat]].mean(0, keepdim=True))


def test_without_a_text_they_are_drawn_by_their_key_with_the_deviation_of_the_bases(tokenizer: Any):
    found, weight = begun(tokenizer, "", num_vectors=75)
    assert float(found.std() / weight.std()) == pytest.approx(1, abs=0.15)
    assert torch.equal(found, begun(tokenizer, "", num_vectors=75)[0])
    assert not torch.equal(found, begun(tokenizer, "", num_vectors=75, seed=1)[0])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"text": "red cat dog", "num_vectors": 2}, "initial_text: .*3 of the base's tokens, and num_vectors is 2"),
        ({"text": "日"}, "initial_text: .*does not know"),
        ({"text": "", "token": "cat"}, 'token: "cat" is in the base\'s vocabulary already: choose another, such as <cat>'),
        ({"text": "", "token": "ther"}, "token: .*vocabulary already"),
    ],
)
def test_what_the_vocabulary_is_against_is_named(tokenizer: Any, given: dict[str, Any], why: str):
    with pytest.raises(RunFailed, match=r"^textual_inversion.tokens\[0\]." + why):
        begun(tokenizer, **given)


# Their deviation


def test_a_step_brings_their_deviation_a_tenth_nearer_and_leaves_rows_that_were_not_finite():
    weights = torch.tensor([9.0, 1.0, 3.0, 1.0, 3.0])
    places = (token_deviation.Place(1, 4, deviation=2.0),)

    def retracted(*, keeps: bool = True, is_finite: bool = True) -> list[float]:
        row = weights.clone()
        clipping = Clipping(torch.tensor(1.0), torch.tensor(is_finite), torch.tensor(0.0))
        update = StyleUpdate(OptimizationSpec(), 1e-3, 0, keeps_deviation=keeps)
        token_deviation.retract(Row(update, row, torch.zeros(5), {}, clipping, torch.tensor(1.0)), places)
        return row.tolist()

    factor = (2.0 / (4 / 3) ** 0.5) ** 0.1  # the deviation of 1, 3, 1, 3 is √(4 / 3)
    assert retracted() == pytest.approx([9.0, *(factor * value for value in (1, 3, 1, 3))])
    assert retracted(keeps=False) == retracted(is_finite=False) == weights.tolist()
