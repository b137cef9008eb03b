"""The guards of weights that are read from a store straight into tensors."""

GUARDS = (
    (
        "stream: an object is as it was listed, also where the store compares nothing",
        "trainer/storage.py",
        'if found.meta["size"] != entry.size_bytes or entry.etag not in (None, found.meta["e_tag"]):',
        "if False:",
        "tests/trainer/test_ranges.py",
    ),
    (
        "stream: no more is asked for ahead than is allowed",
        "trainer/ranges.py",
        "if len(waiting) == IN_FLIGHT else []",
        "if len(waiting) == 2 * IN_FLIGHT else []",
        "tests/trainer/test_ranges.py",
    ),
    (
        "stream: what is loaded is what was digested",
        "trainer/weight_stream.py",
        "if digest.hex() != self._sha256[path]:",
        "if False:",
        "tests/trainer/test_weight_stream.py",
    ),
    (
        "stream: tensors do not lie in one another",
        "trainer/weight_stream.py",
        "if (gap := start + stored.start - file.at) < 0:",
        "if (gap := max(0, start + stored.start - file.at)) < 0:",
        "tests/trainer/test_weight_stream.py",
    ),
    (
        "stream: a node that has a cache keeps what it loads",
        "trainer/prepare/base_copy.py",
        "return node_cache.is_off() and path.endswith(",
        "return path.endswith(",
        "tests/trainer/prepare/test_streaming.py",
    ),
    (
        "stream: the store's errors are not the base's",
        "trainer/families/protocol.py",
        "except (MemoryError, torch.OutOfMemoryError, RunFailed):",
        "except (MemoryError, torch.OutOfMemoryError):",
        "tests/trainer/prepare/test_streaming.py",
    ),
    (
        "stream: warm workers read where the pack at hand may",
        "trainer/loop.py",
        "self.base.read_from(style.base)",
        "pass",
        "tests/trainer/prepare/test_streaming.py::test_a_warm_worker_reads_what_is_left_from_the_base_of_the_next_pack",
    ),
    (
        "stream: what a model keeps in fp32 is kept so",
        "trainer/families/_arriving.py",
        'return torch.float32 if any(part in kept for part in name.split(".")) else how.dtype',
        "return how.dtype",
        "tests/trainer/families/test_streaming.py::test_it_is_the_base_that_a_folder_holds[bf16-krea2-raw]",
    ),
)
