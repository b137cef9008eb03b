"""The configuration file: everything that is wrong with it is said at once, each where it is."""

import tomllib
from pathlib import Path

import pytest

from lorafleet.errors import InvalidInput
from service.backends.kuberay.config import RAY_VERSION, load, parse
from tests.service.backends.kuberay.objects import config

REPOSITORY = Path(__file__).resolve().parents[4]


def test_the_least_that_is_needed_is_a_namespace_and_an_image():
    least = config()
    assert (least.namespace, least.image, set(least.profiles)) == ("runs", "registry/trainer:1", {"default"})


def test_every_mistake_is_told_by_its_path():
    with pytest.raises(InvalidInput) as caught:
        parse(
            {
                "namespace": "Not_A_Name",
                "imagePolicy": "Always",
                "profiles": {"default": {"worker": {"shmSize": "plenty"}, "hostNetwork": True}},
                "kueue": {"queue": "q", "priorityClasses": {"urgent": "x"}},
            }
        )
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {
        "namespace",
        "image",
        "imagePolicy",
        "profiles.default.worker.shmSize",
        "profiles.default.hostNetwork",
        "kueue.priorityClasses.urgent",
    }
    assert "6 problems" in caught.value.message


def test_keys_are_those_of_the_file_and_not_of_the_code():
    with pytest.raises(InvalidInput, match="image_pull_policy"):
        config(image_pull_policy="Always")


def test_a_default_profile_must_be_there():
    with pytest.raises(InvalidInput, match='"default" is required'):
        config(profiles={"big": {}})


@pytest.mark.parametrize(("field", "value"), [("kueue", {"queue": "q"}), ("tenants", {"acme": {"namespace": "acme-runs"}})])
def test_what_does_not_go_with_a_standing_cluster_is_refused(field: str, value: object):
    with pytest.raises(InvalidInput, match=f"take {field} out") as caught:
        config(standingCluster={"name": "warm", "namespace": "runs"}, **{field: value})
    assert [violation.field for violation in caught.value.violations] == ["standingCluster"]


def test_a_tenant_of_its_own_lives_apart_and_keeps_what_it_does_not_say():
    ours = config(
        serviceAccount="run",
        storeSecret="store",
        tenants={"acme": {"namespace": "acme-runs", "storeSecret": "acme-store"}, "globex": {"namespace": "globex-runs"}},
    )
    assert [ours.namespace_of(tenant) for tenant in ("acme", "globex", "other", "")] == ["acme-runs", "globex-runs", "runs", "runs"]
    assert [ours.store_secret_of(tenant) for tenant in ("acme", "globex", "")] == ["acme-store", "store", "store"]
    assert ours.service_account_of("acme") == "run"
    assert ours.namespaces == ("acme-runs", "globex-runs", "runs")


@pytest.mark.parametrize("text", ["[]", "just words", "a: [", ""])
def test_a_file_that_is_no_mapping_is_refused_by_its_name(tmp_path: Path, text: str):
    path = tmp_path / "kuberay.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"kuberay\.yaml"):
        load(path)


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path):
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")


def test_the_rays_version_is_the_trainers():
    trainer = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]["trainer"]
    assert f"ray[default,train]=={RAY_VERSION}" in trainer
