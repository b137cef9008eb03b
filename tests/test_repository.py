"""What holds for the repository as a whole: one source for each thing, and a map that is true."""

import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
DECISIONS = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs" / "decisions").glob("*.md"))
DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/operations.md", "docs/kubernetes.md", "docs/release.md"),
    *DECISIONS,
]
MAX_LINES = 400


def tracked(*patterns: str) -> list[Path]:
    """Files that are committed, or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    return [REPOSITORY / name for name in listed if (REPOSITORY / name).is_file()]


def written_by_hand() -> list[Path]:
    return [path for path in tracked("*.py") if "/v1/" not in str(path) and "/versions/" not in str(path)]


def test_sdk_imports_without_what_only_the_server_and_the_trainer_need() -> None:
    absent = "for name in ('torch', 'ray', 'sqlalchemy', 'boto3', 'service', 'trainer'): sys.modules[name] = None"
    script = f"import sys\n{absent}\nimport lorafleet.cli, lorafleet.client, lorafleet.download, lorafleet.spec_file"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_every_requirement_is_pinned_by_a_name_and_a_version_alone() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z0-9._-]+==[a-z0-9._+!-]+", line) for line in lines)
    pinned = {line.partition("==")[0] for line in lines}
    requirements = [
        *PROJECT["project"]["dependencies"],
        *(one for extra in PROJECT["project"]["optional-dependencies"].values() for one in extra),
    ]
    names = {re.split(r"[\[<>=~! ]", requirement)[0].lower() for requirement in requirements}
    assert names <= pinned


def test_tools_that_judge_the_code_are_pinned_where_they_are_required() -> None:
    pinned = dict(line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().split())
    exact = [one.split("==") for one in PROJECT["project"]["optional-dependencies"]["dev"] if "==" in one]
    assert {name for name, _ in exact} >= {"ruff", "basedpyright", "import-linter", "buf-bin", "grpcio-tools"}
    assert all(pinned[name] == version for name, version in exact)


def test_no_lock_file_that_records_addresses_is_tracked() -> None:
    assert tracked("uv.lock", "poetry.lock", "Pipfile.lock") == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_files_that_are_there(document: str) -> None:
    text = (REPOSITORY / document).read_text()
    links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
    quoted = re.findall(r"`((?:lorafleet|service|trainer|protos|examples|docs|bench|scripts|tests)/[\w./-]*)`", text)
    beside = (REPOSITORY / document).parent  # links are read from where the document lies
    quoted = [name.removesuffix("NAME.py") for name in quoted]  # a file of any name: its folder is there
    missing = [link for link in links if not (beside / link).exists()] + [name for name in quoted if not (REPOSITORY / name).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_make_verbs_that_are_there(document: str) -> None:
    verbs = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)", (REPOSITORY / document).read_text(), flags=re.MULTILINE))
    assert named <= verbs


def test_no_document_names_this_machine_or_a_registry() -> None:
    for path in tracked("*.md", "*.yaml", "*.toml", "*.txt", "Makefile", "*.sh"):
        assert not re.search(r"/work/|/root/|/tmp/w|index-url\s*=|://pypi|://registry", path.read_text()), path


def test_files_too_long_to_read_in_one_go_are_told_of() -> None:
    """A warning, no failure: what is one idea may be longer, and is not to be cut in the middle."""
    for path in written_by_hand():
        if (lines := len(path.read_text().splitlines())) > MAX_LINES:
            warnings.warn(f"{path.relative_to(REPOSITORY)} has {lines} lines: is it one idea?", stacklevel=1)


def test_the_version_is_the_same_wherever_it_stands() -> None:
    chart = (REPOSITORY / "helm" / "lorafleet" / "Chart.yaml").read_text()
    found = {
        "lorafleet/__init__.py": re.findall(r'^__version__ = "(.*)"', (REPOSITORY / "lorafleet" / "__init__.py").read_text(), re.MULTILINE),
        "Chart.yaml": re.findall(r"^(?:version|appVersion): (.*)", chart, re.MULTILINE),
        "Dockerfile": re.findall(r"^ARG VERSION=(.*)", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE),
    }
    assert all(versions and set(versions) == {PROJECT["project"]["version"]} for versions in found.values()), found


def test_every_decision_is_listed_dated_and_whole() -> None:
    index = (REPOSITORY / "docs" / "decisions" / "README.md").read_text()
    for name in DECISIONS:
        text = (REPOSITORY / name).read_text()
        if name.endswith("README.md"):
            continue
        assert f"({Path(name).name})" in index, name
        assert re.match(r"# \d+\. .+ \(\d{4}-\d\d-\d\d\)\n", text), name
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Question", "Decided", "Costs", "Otherwise"], name


def test_hooks_are_tools_of_the_virtual_environment_at_their_pinned_versions() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    assert [each["repo"] for each in hooks] == ["local"], "a hook from elsewhere has a version of its own"
    for hook in hooks[0]["hooks"]:
        assert (REPOSITORY / hook["entry"].split()[0]).exists(), hook["id"]


def test_every_file_opens_with_what_it_is_for() -> None:
    silent = [str(path) for path in written_by_hand() if (text := path.read_text()).strip() and not text.startswith(('"""', "#!"))]
    assert silent == []


def test_database_builds_no_messages_of_the_api() -> None:
    """What the wire shows may change without the tables. (import-linter does not see lorafleet/v1, which is no package.)"""
    names_one = re.compile(r"^\s*(from|import) (lorafleet\.v1|google|grpc)\b", re.MULTILINE)
    assert [str(path) for path in tracked("service/db/*.py") if names_one.search(path.read_text())] == []


def test_nothing_is_unpickled() -> None:
    loading = re.compile(r"\bpickle\.loads?\(|torch\.load\(|\bunsafe_load\(|yaml\.load\((?!text, Loader=_Loader)")
    culprits = [str(path) for path in written_by_hand() if path != Path(__file__) and loading.search(path.read_text())]
    assert culprits == []
