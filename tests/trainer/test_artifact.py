"""An artifact exists once its manifest does, and the manifest is written after every file."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from lorafleet.contract.layout import MANIFEST, JobLayout
from lorafleet.errors import RunFailed
from tests.trainer.packs import Packs
from trainer import artifact
from trainer.checkpoint import Progress
from trainer.group import Group
from trainer.storage import Folder

WEIGHTS = {"unet.a.lora_A.weight": torch.ones(2, 3), "unet.a.lora_B.weight": torch.ones(4, 2)}


class BrokenOff(BaseException):
    """kill -9 in mid-commit, as far as the store can tell."""


def test_a_commit_that_breaks_off_leaves_no_artifact_and_the_next_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = Packs(tmp_path, Group(rank=0, world_size=1))
    style = packs.ready(packs.style("fox"))
    folder = Folder(JobLayout(style.output_uri).adapter)

    def broken_off(*_: object) -> bool:
        raise BrokenOff

    for joint in ("put_if_absent", "write_all"):  # before the manifest, and before any file
        with monkeypatch.context() as patch:
            patch.setattr(Folder, joint, broken_off)
            with pytest.raises(BrokenOff):
                artifact.commit(style, WEIGHTS, Progress(step=6), samples=None)
        assert artifact.existing(style) is None, joint
        assert folder.get_or_none(MANIFEST) is None, joint

    committed = artifact.commit(style, WEIGHTS, Progress(step=6), samples=None)
    assert committed == artifact.existing(style)
    manifest = folder.get(MANIFEST)
    assert hashlib.sha256(manifest).hexdigest() == committed.manifest_sha256
    files = json.loads(manifest)["files"]
    assert {entry.path for entry in folder.list()} == {*files, MANIFEST}
    assert all(hashlib.sha256(folder.get(path)).hexdigest() == facts["sha256"] for path, facts in files.items())


WORD = "another-tenants-word"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        f'{{"job": "{WORD}',
        json.dumps({"job": WORD, "files": {}}),
        '{"job": JOB, "files": {"a": {"size_bytes": "WORD"}}}',
        " " * 2**21,
    ],
    ids=["deep", "half", "another's", "sizes", "long"],
)
def test_a_manifest_that_others_wrote_is_read_within_limits_and_never_quoted(tmp_path: Path, text: str) -> None:
    style = Packs(tmp_path, Group(rank=0, world_size=1))
    ready = style.ready(style.style("fox"))
    Folder(JobLayout(ready.output_uri).adapter).put(MANIFEST, text.replace("JOB", json.dumps(ready.job)).replace("WORD", WORD).encode())
    with pytest.raises(RunFailed) as caught:
        artifact.existing(ready)
    assert (caught.value.reason, caught.value.retryable) in {("OUTPUT_TAKEN", False), ("OBJECT_TOO_LARGE", False)}
    assert WORD not in caught.value.message
