"""What can be said of the images without building them: who runs in them, what gets into them, and what does not."""

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()


def stage(name: str) -> list[str]:
    """Its instructions, continued lines put together, comments away."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    found = re.search(rf"^FROM (\S+) AS {name}\n(.*?)(?=^FROM |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found, name
    return [f"FROM {found[1]}", *(line for line in found[2].splitlines() if line)]


@pytest.mark.parametrize("target", ["service", "trainer"])
def test_nobody_is_root_in_an_image(target: str) -> None:
    users = [line for line in stage(target) if line.startswith("USER ")]
    assert users == ["USER 10001:10001"]
    assert not any(line.startswith("RUN ") for line in stage(target)[stage(target).index("USER 10001:10001") :])


def test_nothing_is_installed_into_the_image_of_the_service_but_its_packages() -> None:
    assert [line for line in stage("service") if line.startswith(("FROM ", "RUN ", "COPY ", "ADD "))] == [
        "FROM base",
        "COPY --from=service-build /opt/venv /opt/venv",
    ]
    assert not any("apt-get" in line for line in [*stage("base"), *stage("build"), *stage("service-build")])


def needed(extra: str) -> set[str]:
    """Names of all packages that lorafleet with this extra brings, as they are installed here."""
    found: set[str] = set()
    left = [Requirement(f"lorafleet[{extra}]")]
    while left:
        one = left.pop()
        for requirement in map(Requirement, requires(one.name) or []):
            wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *one.extras))
            if wanted and requirement.name not in found:
                found.add(requirement.name)
                left.append(requirement)
    return found


def test_the_service_needs_no_torch_and_no_ray() -> None:
    assert {"grpcio", "sqlalchemy", "boto3"} <= needed("service")
    assert not {"torch", "ray", "deepspeed", "diffusers", "numpy"} & needed("service")
    assert {"torch", "ray", "deepspeed"} <= needed("trainer")


def test_only_what_an_image_is_made_of_is_sent_to_the_builder() -> None:
    ignored = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        source
        for name in ("build", "service-build", "trainer-build")
        for line in stage(name)
        if line.startswith("COPY ")
        for source in line.split()[1:-1]
    }
    assert sent == copied


def test_every_index_of_packages_is_the_builders_own() -> None:
    assert not re.search(r"https?://", re.sub(r"http://127\.0\.0\.1:7601\S*", "", DOCKERFILE))


def test_the_fast_trainers_image_has_every_module_of_the_trainer_that_it_imports() -> None:
    """It takes single files of `trainer`: one that is imported and not taken shows only once a pod starts."""
    images = REPOSITORY / "tests" / "k8s" / "images"
    taken = re.search(r'"\$repository"/trainer/\{([\w,]+)\}\.py', (images / "build.sh").read_text())
    assert taken, "build.sh names the files as {a,b}.py"
    own = {path.stem: path for path in (images / "fast-trainer" / "trainer").glob("*.py")}
    there = {**{name: REPOSITORY / "trainer" / f"{name}.py" for name in taken[1].split(",")}, **own}
    for path in there.values():
        text = path.read_text()
        imported = re.findall(r"^\s*(?:from|import) trainer\.(\w+)", text, re.MULTILINE)
        for names in re.findall(r"^\s*from trainer import ([\w, ]+)", text, re.MULTILINE):
            imported += [name.split(" as ")[0].strip() for name in names.split(",")]
        assert set(imported) <= set(there), path
