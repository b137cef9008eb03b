"""Whether a base can be trained, told from its files before anything is launched: its family, and what it predicts."""

import json
import os
from pathlib import Path

import pytest

from lorafleet import objectives
from service.planning.base_shapes import ShapeCache
from service.store.client import Store
from tests.service.planning.test_base_shapes import AT_ONCE_S, SHARDS, base_at, known, shard_denoiser, write_base
from tests.service.world import FakeClock

SCHEDULERS = {
    "sample": ('{"prediction_type": "sample"}', "has prediction_type 'sample'; sd1 trains epsilon and v_prediction alone"),
    "another word": ('{"prediction_type": "somebodys-word"}', "has a prediction_type that is not known; sd1 trains"),
    "a long word": ('{"prediction_type": "%s"}' % ("x" * 10_000), "that is not known"),
    "no word": ('{"prediction_type": [["epsilon"]]}', "that is not known"),
    "null": ('{"prediction_type": null}', "that is not known"),
}
FINE = ['{"prediction_type": "epsilon"}', '{"prediction_type": "v_prediction"}', "{}", "[" * 100_000, "[]", "no JSON", " " * 2**20, None]


def write_scheduler(base: Path, text: str | None) -> None:
    (base / "scheduler").mkdir(exist_ok=True)
    if text is not None:
        (base / objectives.SCHEDULER_CONFIG).write_text(text)


@pytest.mark.parametrize(("text", "said"), SCHEDULERS.values(), ids=SCHEDULERS.keys())
async def test_an_objective_that_is_not_trained_is_told_and_not_repeated(tmp_path: Path, text: str, said: str):
    uri, cache = write_base(tmp_path), ShapeCache(Store(), FakeClock())
    write_scheduler(tmp_path, text)
    assert await known(cache, uri) == [True]
    why = cache.why_not(base_at(uri))
    assert why is not None
    assert why.startswith(f"base_model.uri: {uri}/scheduler/scheduler_config.json has ")
    assert said in why
    assert "somebodys-word" not in why


@pytest.mark.parametrize("text", FINE, ids=lambda text: str(text)[:20])
async def test_a_scheduler_that_says_nothing_wrong_is_the_trainers_to_judge(tmp_path: Path, text: str | None):
    uri, cache = write_base(tmp_path), ShapeCache(Store(), FakeClock())
    write_scheduler(tmp_path, text)
    assert await known(cache, uri) == [True], "its shapes are known all the same"
    assert cache.why_not(base_at(uri)) is None


async def test_a_scheduler_that_is_no_plain_file_is_the_trainers_to_judge(tmp_path: Path):
    uri, cache = write_base(tmp_path), ShapeCache(Store(), FakeClock())
    write_scheduler(tmp_path, None)
    os.mkfifo(tmp_path / objectives.SCHEDULER_CONFIG)
    assert await known(cache, uri) == [True]
    assert cache.why_not(base_at(uri)) is None


async def test_an_objective_is_known_of_a_base_whose_shapes_are_not(tmp_path: Path):
    cache = ShapeCache(Store(), FakeClock())
    write_scheduler(tmp_path, SCHEDULERS["sample"][0])
    assert await known(cache, f"file://{tmp_path}") == [False]
    assert cache.why_not(base_at(f"file://{tmp_path}")) is not None


async def test_a_base_whose_objective_was_mended_is_trained_at_once(tmp_path: Path):
    uri, cache = write_base(tmp_path), ShapeCache(Store(), FakeClock())
    for text in (SCHEDULERS["sample"][0], "{}"):
        write_scheduler(tmp_path, text)
        assert await known(cache, uri) == [True]
        assert (cache.why_not(base_at(uri)) is None) == (text == "{}")


async def told(uri: str) -> tuple[str | None, str | None]:
    """The family that its files tell, and why it is not trained."""
    cache, base = ShapeCache(Store(), FakeClock()), base_at(uri, None)
    await cache.read([("acme", base)], AT_ONCE_S)
    return cache.family(base), cache.why_not(base)


@pytest.mark.parametrize(
    ("pipeline", "config", "family"),
    [
        ("StableDiffusionPipeline", {"cross_attention_dim": 768}, "sd1"),
        ("StableDiffusionPipeline", {"cross_attention_dim": [1024, 1024]}, "sd2"),
        ("StableDiffusionPipeline", {"cross_attention_dim": [[1024]]}, "sd1"),
        ("StableDiffusionXLPipeline", {"cross_attention_dim": 2048}, "sdxl"),
    ],
)
async def test_a_base_tells_its_family(tmp_path: Path, pipeline: str, config: dict[str, object], family: str):
    uri = write_base(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"sample_size": 16, **config}))
    assert await told(uri) == (family, None)


async def test_who_names_the_family_and_who_leaves_it_to_the_base_are_on_one_base(tmp_path: Path):
    cache, uri = ShapeCache(Store(), FakeClock()), write_base(tmp_path)
    assert cache.family(base_at(uri, None)) is None
    await cache.read([("acme", base_at(uri, None))], AT_ONCE_S)
    assert cache.known(base_at(uri, "sd1")) == cache.known(base_at(uri, None)) is not None


@pytest.mark.parametrize("index", ["", "{", "{}", '{"_class_name": ["StableDiffusionPipeline"]}', '{"_class_name": "%s"}' % ("x" * 300)])
async def test_a_base_that_does_not_tell_is_the_trainers_to_judge(tmp_path: Path, index: str):
    uri = write_base(tmp_path)
    (tmp_path / "model_index.json").write_text(index)
    assert await told(uri) == (None, None)


@pytest.mark.parametrize("pipeline", ["AuraFlowPipeline", "StableDiffusionInpaintPipeline", "LatentConsistencyModelPipeline"])
async def test_a_pipeline_that_is_not_trained_is_told_what_there_is(tmp_path: Path, pipeline: str):
    uri = write_base(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    family, why = await told(uri)
    assert family is None
    assert why is not None
    assert why.startswith(f"base_model.family: {uri} is a {pipeline}")
    assert "sd2 (StableDiffusionPipeline)" in why


async def test_a_pipeline_of_another_word_is_not_repeated(tmp_path: Path):
    uri = write_base(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "somebodys-word"}')
    _, why = await told(uri)
    assert why is not None
    assert "somebodys-word" not in why
    assert "of a kind that is not known; there is" in why


async def test_a_base_whose_index_names_shards_that_are_missing_is_not_launched(tmp_path: Path):
    uri = write_base(tmp_path)
    shard_denoiser(tmp_path)
    (tmp_path / "unet" / next(iter(SHARDS))).unlink()
    family, why = await told(uri)
    assert (family, why) == (
        "sd1",
        f"base_model.uri: the index in {uri}/unet names 1 shards that are missing; upload them, or save it anew",
    )
