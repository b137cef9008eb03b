"""What a spec may ask of new tokens, and what it is told where it may not."""

from typing import Any

import pytest

from lorafleet.errors import InvalidSpec
from lorafleet.spec import Spec, parse
from lorafleet.spec_cautions import cautions
from lorafleet.spec_proto import from_proto, to_proto
from lorafleet.spec_tokens import file_stem


def spec_of(*tokens: dict[str, Any], inversion: dict[str, Any] | None = None, family: str | None = "sd1", **parts: dict[str, Any]) -> Spec:
    base = {"uri": "file:///base", **({"family": family} if family else {})}
    asked = {"tokens": list(tokens), **(inversion or {})}
    return parse({"base_model": base, "dataset": {"uri": "file:///pictures"}, "textual_inversion": asked, **parts})


def told(*tokens: dict[str, Any], **parts: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as error:
        spec_of(*tokens, **parts)
    return {each.field: each.message for each in error.value.violations}


S1: dict[str, Any] = {"token": "<s1>"}
FIRST = "textual_inversion.tokens[0].token"
SECOND = "textual_inversion.tokens[1].token"


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", None])
def test_families_of_clip_alone_learn_tokens(family: str | None):
    asked = spec_of({"token": "<s1>", "num_vectors": 2, "initial_text": "red cat"}, {"token": "<s2>"}, family=family)
    assert (asked.textual_inversion.num_vectors, asked.trains_text) == (3, True)
    assert from_proto(to_proto(asked)) == asked


@pytest.mark.parametrize(("family", "encoder"), [("sd3", "T5EncoderModel"), ("flux", "T5EncoderModel"), ("zimage", "Qwen3Model")])
def test_families_that_read_captions_with_others_are_refused_with_the_reason(family: str, encoder: str):
    assert encoder in told(S1, family=family)["textual_inversion.tokens"]


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "at least 1"),
        ("my token", "without spaces"),
        ("<ü>", "ASCII"),
        ("<S1>", "write '<s1>'"),
        ("<|endoftext|>", "CLIP's own"),
        ("<*>", "no letter or digit"),
        ("x" * 61, "at most 60"),
    ],
)
def test_what_is_no_token_is_refused(token: str, why: str):
    assert why in told({"token": token})[FIRST]


@pytest.mark.parametrize("number", [0, 76])
def test_vectors_are_as_many_as_fit_into_a_caption(number: int):
    assert "textual_inversion.tokens[0].num_vectors" in told({"token": "<s1>", "num_vectors": number})
    too_many = told({"token": "<s1>", "num_vectors": 40}, {"token": "<s2>", "num_vectors": 36})
    assert "76 vectors" in too_many["textual_inversion.tokens"]
    assert spec_of({"token": "<s1>", "num_vectors": 40}, {"token": "<s2>", "num_vectors": 35})


@pytest.mark.parametrize(
    ("other", "why"), [("<s1>", "there already"), ("<s1>_1", "begins with"), ("<s", "begins with"), ("[s1]", "s1.safe")]
)
def test_tokens_that_readers_would_take_for_each_other_are_refused(other: str, why: str):
    assert why in told(S1, {"token": other})[SECOND]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_stages_that_cut_tensors_are_refused(stage: int):
    assert f"zero_stage {stage}" in told(S1, cluster={"zero_stage": stage})["textual_inversion.tokens"]


def test_settings_without_tokens_are_refused():
    assert "has none" in told(inversion={"learning_rate": 1e-3})["textual_inversion.learning_rate"]


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"adapter": {"text_encoder": True}}, "adapter.text_encoder"),
        ({"adapter": {"start": {"uri": "file:///a.safetensors"}}}, "adapter.start"),
        ({"adapter": {"overrides": [{"pattern": "attn2", "rank": 2}]}}, "adapter.overrides"),
        ({"training": {"lora_plus_ratio": 4.0}}, "training.lora_plus_ratio"),
        ({"output": {"formats": ["kohya"]}}, "output.formats"),
    ],
)
def test_tokens_alone_are_without_what_an_adapter_has(parts: dict[str, Any], named: str):
    assert named in told(S1, inversion={"alone": True}, **parts)["textual_inversion.alone"]
    assert spec_of(S1, **parts)
    assert spec_of(S1, inversion={"alone": True}).output.formats == ()


def test_tokens_stop_where_asked_and_halfway_beside_an_adapter_by_themselves():
    steps = {"training": {"max_steps": 9}}
    assert spec_of(S1, **steps).token_steps == 5
    assert spec_of(S1, inversion={"train_fraction": 0.3}, **steps).token_steps == 3
    assert spec_of(S1, inversion={"alone": True}, **steps).token_steps == 9
    assert "nothing to train" in told(S1, inversion={"alone": True, "train_fraction": 0.3})["textual_inversion.train_fraction"]


def test_an_optimizer_of_one_rate_trains_tokens_at_it_to_the_end():
    prodigy: dict[str, Any] = {"training": {"optimizer": "prodigy", "learning_rate": 1.0, "max_steps": 9, "lr_scheduler": "constant"}}
    asked = spec_of(S1, **prodigy)
    assert (asked.token_rate, asked.token_steps) == (None, 9)
    assert spec_of(S1).token_rate == 5e-4
    found = told(S1, inversion={"learning_rate": 1e-3, "train_fraction": 0.5}, **prodigy)
    assert set(found) == {"textual_inversion.learning_rate", "textual_inversion.train_fraction"}


def test_a_token_of_letters_alone_is_told_of():
    assert ["textual_inversion.tokens[0].token" in each for each in cautions(spec_of({"token": "sks"}, S1))] == [True]


def test_a_rate_below_the_end_of_its_schedule_is_refused():
    falling: dict[str, Any] = {"training": {"lr_scheduler": "polynomial", "lr_end": 1e-3, "learning_rate": 1e-2}}
    assert "0.0005" in told(S1, **falling)["textual_inversion.learning_rate"]
    assert spec_of(S1, inversion={"learning_rate": 2e-3}, **falling)


def test_a_spec_without_tokens_says_nothing_of_them():
    assert "textual_inversion" not in parse({"base_model": {"uri": "file:///b"}, "dataset": {"uri": "file:///d"}}).model_dump()


def test_files_bear_the_letters_of_their_tokens():
    assert [file_stem(token) for token in ("<s1>", "my-cat_2", "<a><b>", "sks")] == ["s1", "my-cat_2", "a-b", "sks"]
