"""`lorafleet serve` takes options from flags, environment, file and defaults; it tells all that is wrong at once, and shows what counts."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from lorafleet.cli import app
from service.cli.serve import serve
from service.settings.serve_options import NAMES


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def run(*arguments: str, command: str = "serve", **environment: str) -> Result:
    """In this process. `serve` only ever prints, so that a guard that fails ends in a red test, not in a server."""
    start = [command, "--print-config"] if command == "serve" else [command, "--server", "127.0.0.1:1"]
    return CliRunner().invoke(app, [*start, *arguments], env={f"LORAFLEET_{name}": value for name, value in environment.items()})


def refused(*arguments: str, command: str = "serve", **environment: str) -> list[str]:
    """The problems that it tells, one a line."""
    result = run(*arguments, command=command, **environment)
    assert result.exit_code == 2, result.output
    count, *problems = result.stderr.splitlines()
    assert count == f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the options"
    return [each.removeprefix("  ") for each in problems]


def printed(*arguments: str, **environment: str) -> dict[str, tuple[str, str]]:
    """Of each option its value and its source."""
    result = run(*arguments, **environment)
    assert result.exit_code == 0, result.output
    lines = [line.partition("  # ") for line in result.stdout.splitlines()]
    return {text.partition(":")[0]: (text.partition(":")[2].strip(), source) for text, _, source in lines}


def test_bad_options_of_flags_environment_and_file_are_told_at_once(file: Path, tmp_path: Path):
    file.write_text("max-streams: 0\nartifacts: /data\nlog-level: loud\n")
    told = refused(
        *("--state-dir", str(tmp_path / "state"), "--config", str(file), "--listen", "foo", "--max-pack-size", "many"),
        CAPACITY_GPUS="-1",
        OTLP_ENDPOINT="collector:4317",
    )
    expected = [
        ("--max-streams", f"(file {file})", "'0'", "greater than or equal to 1"),
        ("--artifacts", f"(file {file})", "'/data'", "s3://bucket/folder"),
        ("--log-level", f"(file {file})", "'loud'", "'debug'"),
        ("--listen", "", "'foo'", "HOST:PORT"),
        ("--max-pack-size", "", "'many'", "integer"),
        ("--capacity-gpus", "(environment LORAFLEET_CAPACITY_GPUS)", "'-1'", "greater than or equal to 0"),
        ("--otlp-endpoint", "(environment LORAFLEET_OTLP_ENDPOINT)", "'collector:4317'", "http://127.0.0.1:4317"),
    ]
    by_flag = {line.partition(":")[0].partition(" ")[0]: line for line in told}
    assert len(told) == len(expected)
    for flag, *parts in expected:
        assert all(part in by_flag[flag] for part in parts), by_flag[flag]
    assert not (tmp_path / "state").exists()


def test_options_that_do_not_go_together_are_told_beside_those_that_are_bad_alone():
    told = refused(
        "--max-streams", "0", "--admin", "oidc:ada", "--role", "api", "--oidc-issuer", "https://login", TLS_KEY="x", SERVE_TLS_KEY="/no"
    )
    starts = ("--max-streams: ", "--tls-key (environment LORAFLEET_SERVE_TLS_KEY): /no cannot be read", "--oidc-audience and --oidc-jwks ")
    assert all(any(line.startswith(start) for line in told) for start in starts), told
    assert any(line.startswith("--role api: ") for line in told)


def test_what_follows_from_a_bad_option_alone_is_not_told():
    assert [line.partition(":")[0] for line in refused("--database-url", "fleet", "--role", "api")] == [
        "--database-url is not a URL; write postgresql"
    ]


def test_an_earlier_layer_counts(file: Path):
    file.write_text("max-streams: 1\nmax-pack-size: 1\nmax-running-runs: 1\nadmin: [oidc:a, oidc:b]\napi-tokens: true\ncache: null\n")
    found = printed("--config", str(file), "--max-streams", "3", MAX_STREAMS="2", MAX_PACK_SIZE="2", ISOLATE_TENANT="acme bolt")
    assert found["max-streams"] == ("3", "flag")
    assert found["max-pack-size"] == ("2", "environment LORAFLEET_MAX_PACK_SIZE")
    assert found["max-running-runs"] == ("1", f"file {file}")
    assert found["slow-reader-s"] == ("30.0", "default")
    assert found["isolate-tenant"] == ("[acme, bolt]", "environment LORAFLEET_ISOLATE_TENANT")
    assert found["admin"] == ("['oidc:a', 'oidc:b']", f"file {file}")
    assert found["cache"] == ("''", "default"), "null is not there"


def test_a_flag_replaces_the_whole_list_of_the_file(file: Path):
    file.write_text("isolate-tenant: [acme, bolt]\n")
    assert printed("--isolate-tenant", "cord", CONFIG=str(file))["isolate-tenant"] == ("[cord]", "flag")


def test_what_is_printed_shows_every_option_starts_nothing_and_is_a_file_again(file: Path, tmp_path: Path):
    options = ("--state-dir", str(tmp_path / "state"), "--max-streams", "7", "--role", "all", "--log-format", "json")
    found = printed(*options)
    assert tuple(found) == NAMES
    assert not (tmp_path / "state").exists()
    file.write_text(run(*options).stdout)
    again = printed("--config", str(file))
    assert {name: value for name, (value, _) in again.items()} == {name: value for name, (value, _) in found.items()}


def test_every_option_of_serve_is_a_key_of_the_file():
    options = {name.replace("_", "-") for name in serve.__signature__.parameters}  # pyright: ignore[reportFunctionMemberAccess]
    assert options == {*NAMES, "config", "print-config"}


def test_no_password_is_shown():
    url, ray = "postgresql://ada:very-secret@db/fleet?sslpassword=very-secret", "https://ada:very-secret@ray"
    shared = ("--artifacts", "s3://a", "--ray-address", ray)
    result = run(*shared, DATABASE_URL=url)
    assert result.exit_code == 0
    assert "ada:***@db/fleet" in result.stdout
    assert "ada:***@ray" in result.stdout
    assert "very-secret" not in result.output


@pytest.mark.parametrize("url", ["mysql://ada:very-secret@db/fleet", "ada:very-secret@db/fleet", "very-secret"])
def test_no_password_is_told_of_a_url_that_is_none(url: str):
    [told] = refused(DATABASE_URL=url)
    assert "LORAFLEET_DATABASE_URL" in told
    assert "very-secret" not in told


def test_no_password_is_told_of_a_url_in_the_wrong_place():
    [told] = refused("--log-level", "postgresql://ada:very-secret@db/fleet")
    assert "ada:***@db" in told
    assert "very-secret" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_running_runs: 4", "max_running_runs (file {file}): unknown option; close: max-running-runs"),
        ("artifcats: s3://a", "artifcats (file {file}): unknown option; close: artifacts"),
        ("config: other.yaml", "config (file {file}): unknown option"),
        ("listen: [127.0.0.1:7600]", "--listen (file {file}): takes one value, not a list"),
        ("listen: {host: a}", "--listen (file {file}): takes text or a number"),
        ("admin: [5]", "--admin (file {file}): takes a list of texts"),
        ("max-streams: true", "--max-streams (file {file}): true is not what it takes"),
        ("max-streams: 1.5", "--max-streams (file {file}): Input should be a valid integer"),
        ("warm-idle-s: .inf", "--warm-idle-s (file {file}): must be a finite number"),
        ("oidc-claim: 0123", "--oidc-claim (file {file}): is a number for YAML; put it in quotes"),
        ("state-dir: 2026-01-01", "--state-dir (file {file}): takes text or a number"),
        ("a: [", "--config: {file}: is not YAML: line 2"),
        ("- listen", "--config: {file}: holds no mapping"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, told: str, file: Path):
    file.write_text(text)
    [line] = refused("--config", str(file))
    assert line.startswith(told.format(file=file)), line


def test_a_file_that_is_not_there_is_told_with_what_else_is_wrong(tmp_path: Path):
    told = refused("--max-streams", "0", CONFIG=str(tmp_path / "none"))
    assert told[0] == f"--config (environment LORAFLEET_CONFIG): {tmp_path / 'none'}: no such file"
    assert told[1].startswith("--max-streams: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--max-stream", "5", "--nonsense=very-secret"],
            ["--max-stream: unknown option; close: --max-streams", "--nonsense: unknown option"],
        ),
        (["--max-pack-size", "2", "--listen"], ["--listen: requires a value"]),
        (["127.0.0.1:7600"], ["'127.0.0.1:7600': is not the value of an option"]),
    ],
)
def test_wrong_flags_are_told_with_what_else_is_wrong(arguments: list[str], told: list[str]):
    *first, last = refused(*arguments, MAX_STREAMS="0")
    assert first == told
    assert last.startswith("--max-streams (environment LORAFLEET_MAX_STREAMS): ")


def test_doctor_reads_the_file_of_serve(file: Path):
    file.write_text("max-streams: 5\nbackend: slurm\nlistn: x\n")
    told = refused("--config", str(file), command="doctor")
    assert [line.partition(" ")[0] for line in told] == ["listn", "--backend"]


def test_help_is_shown_whatever_else_is_wrong(file: Path):
    assert "--print-config" in run("--config", str(file), "--max-streams", "0", "--help").stdout


def test_the_printed_file_is_yaml_even_of_odd_values(tmp_path: Path):
    odd = str(tmp_path / "a: b # c")
    text = run("--state-dir", odd, "--oidc-claim", "no").stdout
    found = yaml.safe_load(text)
    assert (found["state-dir"], found["oidc-claim"]) == (odd, "no")
