"""The Python of README.md and docs/ runs as it is written, against a real `lorafleet serve`; so do the commands that need no server."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.serving import REPOSITORY, served
from tests.service.stand_in_ray import stand_in_ray

DOCUMENTS = ["README.md", *sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SESSION = re.compile(r"^\$ (lorafleet (?:validate|schema).*)\n((?:(?!\$ |```).*\n)*)", re.MULTILINE)  # of a console block
ADDRESS = "127.0.0.1:7600"


def python_of(document: str) -> list[str]:
    return BLOCK.findall((REPOSITORY / document).read_text())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stand_in_ray() as ray, served(tmp_path_factory.mktemp("serve") / "state", "--ray-address", ray.address) as server:
        yield server.address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout as the reader has it after `restyle.py`, with one picture for all of them."""
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    (tmp_path / "build" / "sepia").mkdir(parents=True)
    picture = next((REPOSITORY / "examples" / "data" / "noto-emoji").glob("*.png"))
    (tmp_path / "build" / "sepia" / picture.name).write_bytes(picture.read_bytes())
    return tmp_path


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if python_of(document)])
def test_python_of_a_document_runs(document: str, address: str, folder: Path) -> None:
    for number, block in enumerate(python_of(document)):
        script = folder / f"block_{number}.py"
        script.write_text(block.replace(ADDRESS, address))
        ran = subprocess.run(
            [sys.executable, str(script)], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, f"{document}, block {number}:\n{block}\n{ran.stderr}"
        assert ran.stdout, f"{document}, block {number} shows nothing"


def test_readme_shows_both_clients() -> None:
    text = "\n".join(python_of("README.md"))
    assert "with Client(" in text
    assert "async with AsyncClient(" in text


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if SESSION.search((REPOSITORY / document).read_text())])
def test_console_of_a_document_shows_what_comes(document: str) -> None:
    for command, shown in SESSION.findall((REPOSITORY / document).read_text()):
        _, *arguments = shlex.split(command)
        ran = subprocess.run(
            [sys.executable, "-m", "lorafleet.cli", *arguments],
            cwd=REPOSITORY,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.stdout + ran.stderr).strip() == shown.strip(), command


@pytest.mark.proof  # it may have to build grpcurl
def test_grpcurl_of_the_readme_shows_what_comes(address: str, folder: Path) -> None:
    [section] = re.findall(r"^## With grpcurl\n(.*?)^## ", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    [script] = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    [shown] = re.findall(r"^```text\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (folder / "scripts").symlink_to(REPOSITORY / "scripts")
    (folder / ".tools").symlink_to(REPOSITORY / ".tools")
    assert ADDRESS in script
    script = script.replace(ADDRESS, address).replace("-max-time 20", "-max-time 12")
    ran = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    pattern = re.escape(shown).replace(re.escape("..."), ".*?")
    assert re.fullmatch(pattern, ran.stdout, re.DOTALL), ran.stdout[:5000]


def environment() -> dict[str, str]:
    """Ours, without what would change whom the clients call."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("LORAFLEET_")}, "PYTHONPATH": str(REPOSITORY)}
