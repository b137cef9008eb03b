"""Vocabularies for tiny tokenizers, made here: what the tests' captions are written in, and no download."""

import string
from collections.abc import Sequence

from transformers import CLIPTokenizer, Qwen2Tokenizer, T5Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

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


# What Qwen3's own template makes of a chat, as far as one question goes; written as it is published, with its turns of the loop.
QWEN_CHAT = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def qwen_tokenizer(max_tokens: int, more_words: Sequence[str] = ()) -> tuple[Qwen2Tokenizer, int]:
    """Bytes, and words with the space before them; with the template of a chat."""
    tokens, merges = list(bytes_to_unicode().values()), list[tuple[str, str]]()
    for word in ("user", "assistant", *(f"Ġ{word}" for word in WORDS), *more_words):
        for end in range(1, len(word)):
            merge = (word[:end], word[end])
            if merge not in merges:
                merges.append(merge)
                tokens.append(word[: end + 1])
    tokens = list(dict.fromkeys(tokens))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,  # pyright: ignore[reportArgumentType]
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=max_tokens,
    )
    tokenizer.chat_template = QWEN_CHAT
    return tokenizer, len(tokenizer)
