"""A base's files lie in its own folder, or in the repository of the Hugging Face cache that it is a snapshot of."""

import shutil
from pathlib import Path

import pytest

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec
from trainer.prepare.base_model import inspect
from trainer.storage import Folder


@pytest.mark.parametrize("name", ["unet/config.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer", "model_index.json"])
def test_a_base_with_a_part_that_is_another_tenants_is_refused(tmp_path: Path, name: str):
    base, theirs = tmp_path / "base", tmp_path / "theirs"
    for copy in (base, theirs):
        shutil.copytree(BASE_MODEL, copy)
    shutil.rmtree(base / name) if (base / name).is_dir() else (base / name).unlink()
    (base / name).symlink_to(theirs / name)
    with pytest.raises(RunFailed, match="by a symbolic link"):
        inspect(BaseModelSpec(uri=f"file://{base}", family="sd1"), Folder(f"file://{tmp_path}/cache"))


def test_a_snapshot_of_a_hugging_face_cache_is_read(tmp_path: Path):
    repository = tmp_path / "models--acme--sd"
    snapshot = repository / "snapshots" / "abc"
    shutil.copytree(BASE_MODEL, snapshot)
    (repository / "blobs").mkdir()
    for number, path in enumerate([path for path in snapshot.rglob("*") if path.is_file()]):
        path.symlink_to(path.rename(repository / "blobs" / str(number)))
    assert inspect(BaseModelSpec(uri=f"file://{snapshot}", family="sd1"), Folder(f"file://{tmp_path}/cache")).trainable
