"""docs/security.md cites tests as evidence: each of them exists, and so does each file of the tree that it names."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "docs" / "security.md").read_text()
THREATS = TEXT.partition("## Threats")[2]


def test_every_test_that_the_threat_model_cites_exists() -> None:
    cited = set(re.findall(r"`(test_\w+)`", TEXT))
    written = {
        name
        for file in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)\(", file.read_text(), flags=re.M)
    }
    assert len(cited) > 20
    assert not cited - written


def test_every_threat_with_a_defence_cites_a_test() -> None:
    threats = re.split(r"^- ", THREATS, flags=re.M)[1:]
    assert len(threats) > 20
    for threat in threats:
        assert "Defence: nothing." in threat or re.search(r"Defence:\s.*Tests:\s+`test_\w+`", threat, flags=re.S), threat


def test_every_file_that_the_document_names_exists() -> None:
    named = re.findall(r"`((?:service|lorafleet|trainer|tests|scripts)/[\w/]+\.py)`", TEXT)
    assert named
    assert not [name for name in named if not (REPOSITORY / name).is_file()]
