"""Vocabularies for tiny tokenizers, made here: what the tests' captions are written in, and no download."""

import string

from transformers import CLIPTokenizer, T5Tokenizer

from tests.trainer.sdxl.tiny_base import WORDS, _tokenizer, _vocabulary

MAX_TOKENS = 20


def clip_tokenizer() -> tuple[CLIPTokenizer, int]:
    """With the number of its tokens; the text ends with the highest, as in CLIP."""
    vocabulary, merges = _vocabulary()
    return _tokenizer(vocabulary, merges, "<|endoftext|>"), len(vocabulary)


def t5_tokenizer(max_tokens: int = MAX_TOKENS) -> tuple[T5Tokenizer, int]:
    """Pieces of sentencepiece: words with the space before them, and letters. 0 pads, 1 ends, as in T5."""
    letters = [each for each in string.printable if not each.isspace()]
    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS), "▁", *letters]
    scored = [(piece, -float(rank)) for rank, piece in enumerate(pieces)]
    tokenizer = T5Tokenizer(vocab=scored, extra_ids=0, model_max_length=max_tokens)  # pyright: ignore[reportArgumentType]
    return tokenizer, len(tokenizer)
