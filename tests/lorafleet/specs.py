"""Specs for tests: the smallest one, and a Hypothesis strategy of all good ones."""

from typing import Any

from hypothesis import strategies as st

from lorafleet import spec

SMALLEST: dict[str, Any] = {"base_model": {"uri": "file:///base"}, "dataset": {"uri": "s3://pictures/fox"}}


def smallest() -> spec.Spec:
    return spec.parse(SMALLEST)


def with_fields(**sections: Any) -> dict[str, Any]:
    return {**SMALLEST, **sections}


_texts = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=20)
_uris = st.sampled_from(["file:///data", "s3://bucket/prefix", "s3://a-bucket/a/b.c"])
_modules = st.lists(st.sampled_from(["to_q", "to_k", "ff.net.2", "conv1"]), min_size=1, max_size=4, unique=True)


def _floats(low: float, high: float, *, above: bool = False, below: bool = False) -> st.SearchStrategy[float]:
    return st.floats(low, high, exclude_min=above, exclude_max=below)


_overrides = st.lists(
    st.fixed_dictionaries(
        {"pattern": st.sampled_from(["attn1", "mid_block.*attn2", "*ff", "unet"]), "rank": st.integers(1, 64)},
        optional={"alpha": _floats(0.1, 64), "dropout": _floats(0, 0.9)},
    ),
    max_size=3,
    unique_by=lambda each: each["pattern"],
)
_adapter = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["lora", "rslora", "dora"]),
        "rank": st.integers(1, 512),
        "alpha": _floats(0.1, 512),
        "target_modules": _modules,
        "text_encoder": st.booleans(),
        "overrides": _overrides,
    },
)
_training = st.integers(1, 10_000).flatmap(
    lambda max_steps: st.fixed_dictionaries(
        {"max_steps": st.just(max_steps), "lr_warmup_steps": st.integers(0, max_steps)},
        optional={
            "micro_batch_size": st.integers(1, 64),
            "learning_rate": _floats(0, 10, above=True),
            "lr_scheduler": st.sampled_from(["constant", "linear", "cosine", "cosine_with_restarts"]),
            "precision": st.sampled_from(["fp32", "bf16"]),
            "seed": st.integers(0, 2**63 - 1),
            "min_snr_gamma": _floats(0.1, 20),
            "caption_dropout": _floats(0, 1),
        },
    )
)
_objective = st.fixed_dictionaries(
    {},
    optional={
        "time_density": st.sampled_from(["uniform", "logit_normal", "cubic"]),
        "time_shift": _floats(0.1, 10),
        "min_time": _floats(0, 0.5),
        "max_time": _floats(0.5, 1, above=True),
        "loss": st.sampled_from(["squared", "huber"]),
        "input_perturbation": _floats(0, 1),
    },
)

GOOD_FIELDS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "base_model": st.fixed_dictionaries({"uri": _uris}),
        "dataset": st.fixed_dictionaries(
            {"uri": _uris},
            optional={
                "trigger_phrase": _texts,
                "resolution": st.integers(32, 1024),
                "masks": st.sampled_from(["none", "alpha", "files"]),
                "regularization": st.fixed_dictionaries({"uri": st.just("s3://others/dogs"), "weight": st.floats(0.1, 2)}),
            },
        ),
    },
    optional={
        "adapter": _adapter,
        "training": _training,
        "objective": _objective,
        "cluster": st.fixed_dictionaries({}, optional={"num_workers": st.integers(1, 64), "zero_stage": st.integers(0, 3)}),
        "validation": st.fixed_dictionaries({}, optional={"prompts": st.lists(_texts, max_size=4), "seed": st.integers(0, 2**32 - 1)}),
        "scheduling": st.fixed_dictionaries(
            {}, optional={"priority": st.integers(-100, 100), "sharing": st.sampled_from(["anyone", "tenant", "nobody"])}
        ),
        "checkpointing": st.fixed_dictionaries({}, optional={"every_steps": st.integers(1, 1000), "keep": st.integers(1, 9)}),
        "output": st.fixed_dictionaries({}, optional={"uri": _uris, "formats": st.just(["kohya"])}),
        "labels": st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True), _texts, max_size=4),
    },
)
