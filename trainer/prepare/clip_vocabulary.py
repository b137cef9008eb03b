"""CLIP's vocabulary, which a checkpoint in one file does not have: it comes with a package that is published to read CLIP's models."""

import gzip
import json
from importlib import metadata
from pathlib import Path

PACKAGE = "open-clip-torch"
_FILE = "open_clip/bpe_simple_vocab_16e6.txt.gz"  # OpenAI's, as CLIP was published with it (github.com/openai/CLIP)
_NUM_MERGES = 49152 - 256 - 2  # of the lines after the first


def write_vocabulary(source: Path, folder: Path) -> None:
    """CLIP's tokens, as transformers reads them: 256 bytes, these as ends of words, what merges make of them, and two marks."""
    lines = gzip.decompress(source.read_bytes()).decode().split("\n")[1 : _NUM_MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    letters = _letters()
    tokens = [*letters, *(f"{each}</w>" for each in letters), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))


def _letters() -> list[str]:
    """Of each byte a letter that can be seen, in the order of CLIP's vocabulary (Radford et al. 2019: byte-level BPE)."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return [*map(chr, seen), *(chr(256 + number) for number in range(len(unseen)))]


def published() -> Path | None:
    """In the distribution, which is not imported: it would bring torchvision. None: it is not installed."""
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(_FILE)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None
