"""The guards of what keeps memory small without changing what is trained, and of what is said of it beforehand."""

AGAIN = "tests/trainer/families/test_gradient_checkpointing.py::test_recomputed_blocks_change_no_bit_of_a_pack[flux]"
GUARDS = (
    (
        "checkpointing: a block that is computed again sees the same adapters",
        "trainer/adapters/recomputation.py",
        "(nullcontext(), again())",
        "(nullcontext(), nullcontext())",
        AGAIN,
    ),
    (
        "checkpointing: blocks are recomputed where that is asked for",
        "trainer/pack/state.py",
        "recomputes=self._recomputes",
        "recomputes=False",
        AGAIN,
    ),
    (
        "checkpointing: a warm base keeps what its blocks compute for the next pack",
        "trainer/adapters/model.py",
        "        self.strip()\n        recomputation.keep(self._denoiser)\n",
        "        self.strip()\n",
        "tests/trainer/sdxl/test_gradient_checkpointing.py::test_a_warm_base_is_left_as_it_was",
    ),
    (
        "checkpointing: styles that recompute share no pass with others",
        "service/planning/planner.py",
        "        recomputes=spec.training.gradient_checkpointing,\n    )\n\n\ndef sharing_of",
        "    )\n\n\ndef sharing_of",
        "tests/service/planning/test_planner.py",
    ),
    (
        "checkpointing: a denoiser without blocks is told where the spec is read",
        "lorafleet/spec_rules.py",
        "FAMILIES.get(family).no_recomputation if chosen and family is not None else None",
        "None",
        "tests/trainer/test_toys.py::test_a_denoiser_without_blocks_is_not_asked_to_recompute_them",
    ),
    (
        "memory: text takes its share of the activations",
        "lorafleet/catalog/family.py",
        "self.values_per_pixel * (latent_pixels + self.text_pixels)",
        "self.values_per_pixel * latent_pixels",
        "tests/service/control/test_memory.py",
    ),
    (
        "dropout: of a bank's styles in different places of a pass each has its own",
        "trainer/pack/batch.py",
        "seeds[-1] += [0] * slot_group.rows_each",
        "seeds[0] += [0] * slot_group.rows_each",
        "tests/trainer/pack/test_pack_run.py::test_styles_of_one_kind_have_their_own_dropout_whatever_their_micro_batches",
    ),
)
