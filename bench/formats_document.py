"""Makes docs/formats.md of what `make bench-formats` measured: which program draws with which file what was trained."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from lorafleet import adapter_readers
from lorafleet.catalog import FAMILIES, METHODS, Family, file_names

RESULTS = Path(__file__).parent / "results" / "formats.json"
DOCUMENT = Path(__file__).parent.parent / "docs" / "formats.md"
FORMATS = ("kohya", "diffusers", "peft", "comfyui")
Figures = Mapping[str, float]

INTRODUCTION = """# Adapter files

Made by `make bench-formats`; the figures are in `bench/results/formats.json`.

| format | names | what it is scaled by | for |
|---|---|---|---|
| `kohya` | `lora_unet_…lora_down.weight`, LyCORIS' keys | `.alpha` of each module | ComfyUI, AUTOMATIC1111, Forge |
| `diffusers` | `unet.…lora_A.weight` | in B; `lora_adapter_metadata` | `load_lora_weights` |
| `peft` | a folder; `base_model.model.…lora_A.weight` | `lora_alpha`, `alpha_pattern` | `PeftModel.from_pretrained` |
| `comfyui` | `diffusion_model.…lora_A.weight`, by the published names | `.alpha` of each module | ComfyUI |

`output.formats` chooses among them. `lorafleet convert IN OUT --to FORMAT` changes any file of anyone's into another: weights keep their
bits, and alpha carries what they are scaled by. Into diffusers' files a scale that is a power of two goes with B, since ComfyUI takes no
other of them; other scales stand in the metadata, or with `--fold` in B, rounded. What a format cannot hold is refused: PEFT and diffusers
hold LoRA and DoRA alone (diffusers LoKr of a few families, as the trainer writes it), and a DoRA on some of the layers that are one in the
published code has no place in kohya's and ComfyUI's files. `--as-lora RANK` writes the nearest LoRA by singular values and tells its error;
DoRA and OFT need `--base FOLDER` for that, since what they add is made of the base's weights. Half a file is never left.

`output.plain_lora_rank` of a spec has the same made of a DoRA, LoHa, LoKr, OFT or T-LoRA where it was trained: the nearest LoRA of that
rank lies in the artifact as `plain-lora/`, in kohya's and diffusers' format, for the programs that misread the method or do not load
it. What it leaves out, as a share of the size of the updates, stands in `manifest.json`, the model card and the files' metadata
(`lorafleet.as_lora_error`). Of T-LoRA, whose update goes by the noise, it is the nearest to all of them at once, over times drawn
uniformly. The adapter's own files are what `adapter.start` and everything else here go by.

`lorafleet inspect-adapter FILE` tells format, family, method, ranks, scales, norms by part and block, and the verdicts below for that file.
Files whose modules fit several families (attention alone of FLUX.1 and Chroma, say) are taken for the one that their metadata name, else
`--family` says which. Pickled files, half files, numbers that are not finite, names of two formats and names that are nothing's are
refused, with the names. `adapter.start` of a spec takes the same files ([spec](spec.md)).

## New tokens

A new token (`textual_inversion` of a spec) is a file of its own, `embeddings/s1.safetensors` for `<s1>`. Of `sd1` and `sd2` its one
tensor, (vectors, width), is called as the token: diffusers' `load_textual_inversion` takes the name for the token, AUTOMATIC1111 and
ComfyUI take the only tensor there is, and know it by the file's name (`s1`, ComfyUI `embedding:s1`). Of `sdxl` there are two, `clip_l`
and `clip_g`, which both of these look for; to diffusers each is given with its tokenizer and text encoder, as the model card shows.
diffusers is tried on tiny bases, where its pictures are the trainer's; of AUTOMATIC1111 the source was read, ComfyUI was not tried with
them. No LoRA file has them (`bundle_emb.…`): diffusers would load none of it. `lorafleet inspect-adapter` tells such a file of
anyone's.

On published SDXL, whose configs call 2 the end of a text, transformers takes the pooled text where an id is the highest: at the new token.
The trainer, kohya's, AUTOMATIC1111 and ComfyUI take it at the end; so does diffusers after the card's last line of loading.

## Where each file draws what was trained

Of LoRA and rsLoRA. **yes**: latents of the tiny base differ by at most 1e-3 from those of a base with the adapter in its weights; the
largest difference is in brackets. diffusers and PEFT are measured here, ComfyUI by hand ([below](#comfyui)); what is said of
AUTOMATIC1111 is read in its sources, and not tried.
"""

METHODS_TITLE = """
## Methods

What diffusers (of PEFT's folders PEFT) makes of a file of each method: **yes**; **no**: it does not load it, or draws something else;
**–**: no such file is written, and the spec or the base is refused with the reason.
"""

END = """
## ComfyUI

Tried by hand, on 2026-12-01, with the code that ComfyUI 0.19.3 (commit 3086026) maps names and patches weights by, on the tiny bases of
every family but Krea 2, which it has not, with an adapter on every kind of layer; and on three of them with that of a125cd8, of October
2025. No picture was drawn.

- `kohya` and `comfyui`: of LoRA (T-LoRA's file is one), LoHa, LoKr and OFT every weight but the one below is what the method's own
  merge makes it, at most 3e-06 of the largest of its update apart, and no name is left over.
- `diffusers`: LoRA and T-LoRA of FLUX.1, Chroma, FLUX.2, Stable Diffusion 3, Z-Image and Qwen-Image too, and LoKr of FLUX.2 and
  Z-Image. Of UNets the attention is not read, as the table says.
- DoRA: no weight is as it was trained; of diffusers' files the magnitudes are dropped. `output.plain_lora_rank` writes what it reads.
- Stable Diffusion 3, the modulation of the last block's text: its map of diffusers' names leaves the halves as they are, which the
  published code has the other way round. So there kohya's and ComfyUI's files are right, and diffusers' is not.

kohya's sd-scripts (48d368f, February 2026), tried in the same way: `networks/lora.py` merges `kohya` of LoRA and rsLoRA into every
layer of the UNets of Stable Diffusion 1.x and 2.x to the same bits as ours. Its scripts for other families were not tried.

## DoRA, and what no file tells

DoRA in kohya's and ComfyUI's files: diffusers drops the magnitudes; AUTOMATIC1111 and older ComfyUI take the norm over inputs, newer
ComfyUI over outputs, but of the weights before training. `lorafleet validate` says so of a spec; `diffusers` and `peft` are right.

Each file is also merged by the arithmetic that LyCORIS publishes and compared with the method's own merge: at most {merge:.1g} of the
largest weight apart. One layer is told apart by nothing in an OFT's file: the modulation of the last block's text of Stable Diffusion 3,
whose halves the published code has in another order; `convert` leaves it as it is in the file.
"""


def write() -> None:
    DOCUMENT.write_text(document(json.loads(RESULTS.read_text())))


def document(figures: Figures) -> str:
    families = [family for family in FAMILIES.all() if file_names.of(family.name) is not None]
    merge = max((value for key, value in figures.items() if key.endswith("_merge_max_diff") and not key.startswith("sd3_oft")), default=0.0)
    lines = [INTRODUCTION, *_loras(families, figures), METHODS_TITLE, *_methods(families, figures), END.format(merge=merge)]
    return "\n".join(lines)


def _loras(families: list[Family], figures: Figures) -> Iterator[str]:
    yield (
        "| family | "
        + " | ".join(f"`{each}` in {'PEFT' if each == 'peft' else 'diffusers'}" for each in FORMATS)
        + " | ComfyUI reads | AUTOMATIC1111 reads |"
    )
    yield "|---" * (len(FORMATS) + 3) + "|"
    for family in families:
        measured = [_lora(figures, family, each) for each in FORMATS]
        others = [_readers(family, program) for program in ("ComfyUI", "AUTOMATIC1111")]
        yield f"| {family.title} | " + " | ".join([*measured, *others]) + " |"


def _lora(figures: Figures, family: Family, file_format: str) -> str:
    program = "peft" if file_format == "peft" else "diffusers"
    keys = [f"{family.name}_{method}_{file_format}_{program}" for method in ("lora", "rslora")]
    if all(figures.get(f"{key}_loads") for key in keys):
        return f"**yes** ({max(figures[f'{key}_max_diff'] for key in keys):.0e})"
    return f"{_verdict(family, file_format, 'lora').loads}: {_verdict(family, file_format, 'lora').why}"


def _readers(family: Family, program: str) -> str:
    verdicts = {each: adapter_readers.of_file(family, each, ("lora",)) for each in FORMATS}
    reads = [each for each in FORMATS if any(found.program == program and found.loads == adapter_readers.YES for found in verdicts[each])]
    return ", ".join(f"`{each}`" for each in reads) or "none"


def _verdict(family: Family, file_format: str, method: str) -> adapter_readers.Verdict:
    program = "PEFT" if file_format == "peft" else "diffusers"
    return next(each for each in adapter_readers.of_file(family, file_format, (method,)) if each.program.startswith(program))


def _methods(families: list[Family], figures: Figures) -> Iterator[str]:
    yield "| family | method | " + " | ".join(f"`{each}`" for each in FORMATS) + " |"
    yield "|---" * (len(FORMATS) + 2) + "|"
    for family in families:
        for method in METHODS.names():
            cells = [_cell(figures, f"{family.name}_{method}_{each}", each) for each in FORMATS]
            if method not in ("lora", "rslora") and any(cells):
                yield f"| {family.title} | {method} | " + " | ".join(cells) + " |"


def _cell(figures: Figures, key: str, file_format: str) -> str:
    if f"{key}_written" not in figures:
        return ""
    if not figures[f"{key}_written"]:
        return "–"
    return "**yes**" if figures[f"{key}_{'peft' if file_format == 'peft' else 'diffusers'}_loads"] else "no"


if __name__ == "__main__":
    write()
