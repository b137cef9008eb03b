"""Filters: the grammar of AIP-160 as far as we take it, found in the database as Python would find it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorafleet.errors import InvalidInput
from lorafleet.v1 import training_service_pb2 as pb
from service.api.lists.filters import MAX_DEPTH, AllOf, AnyOf, Comparison, Not, parse_filter
from service.api.lists.jobs import list_jobs
from tests.service.world import World

A, B, C = (Comparison("labels", "=", value, "x") for value in "abc")
NASTY_VALUES = ("red", "", "it's", '" OR "', "'; DROP TABLE jobs; --", "%", "NULL", "AND", "-1", "\\", "größe")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("labels.x = a AND labels.x = b AND labels.x = c", AllOf((A, B, C))),
        ("labels.x = a AND labels.x = b OR labels.x = c", AllOf((A, AnyOf((B, C))))),
        ("labels.x = a OR labels.x = b AND labels.x = c", AllOf((AnyOf((A, B)), C))),
        ("labels.x = a OR (labels.x = b AND labels.x = c)", AnyOf((A, AllOf((B, C))))),
        ("NOT labels.x = a OR labels.x = b", AnyOf((Not(A), B))),
        ("NOT (labels.x = a OR labels.x = b)", Not(AnyOf((A, B)))),
        ("-labels.x=a AND -(labels.x=b) AND - labels.x = c", AllOf((Not(A), Not(B), Not(C)))),
        ("((labels.x = a))", A),
        ("--labels.x = a", Not(Not(A))),
        ('labels.x = "AND"', Comparison("labels", "=", "AND", "x")),
        ("labels.x = OR OR labels.x = NOT", AnyOf((Comparison("labels", "=", "OR", "x"), Comparison("labels", "=", "NOT", "x")))),
        ("labels.x = -a", Comparison("labels", "=", "-a", "x")),
        ("  ", None),
    ],
)
def test_a_filter_is_read_as_aip_160_says(text: str, condition: object):
    assert parse_filter(text) == condition


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("(state = RUNNING", "has a '(' without its ')'"),
        ("state = RUNNING)", "has a ')' too many"),
        ("()", "is not a comparison at ')'"),
        ("state = RUNNING state = QUEUED", "has 'state' where AND, OR or the end should be"),
        ("state = RUNNING and state = QUEUED", "has 'and' where AND, OR or the end should be"),
        ("state = RUNNING OR", "is not a comparison at 'its end'"),
        ("OR state = RUNNING", "is not a comparison at 'OR state ='"),
        ("NOT", "is not a comparison at 'its end'"),
        ("-", "is not a comparison at 'its end'"),
        ("state = (RUNNING)", "is not a comparison at 'state = ('"),
        ("state (= RUNNING)", "is not a comparison at 'state ( ='"),
        ("(" * (MAX_DEPTH + 1) + "state = QUEUED" + ")" * (MAX_DEPTH + 1), f"has more than {MAX_DEPTH} parentheses and NOTs"),
        ("NOT " * 450 + "state = QUEUED", f"has more than {MAX_DEPTH} parentheses and NOTs"),
        ("-" * 1900 + "state = QUEUED", f"has more than {MAX_DEPTH} parentheses and NOTs"),
        (" OR ".join(["state = QUEUED"] * 21), "has more than 20 comparisons"),
    ],
)
def test_a_mistake_is_told_where_it_is(text: str, told: str):
    with pytest.raises(InvalidInput) as refused:
        parse_filter(text)
    assert refused.value.reason == "BAD_FILTER"
    assert told in refused.value.message


@given(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=80)
    | st.lists(st.sampled_from("()- ANDORNOT state=QUEUED\"'\\")).map("".join)
)
def test_any_text_is_read_or_refused(text: str):
    with suppress(InvalidInput):
        parse_filter(text)


@dataclass(frozen=True)
class Asked:
    """A filter as text, and whether a job is found by it."""

    text: str
    tree: Any

    def finds(self, job: Mapping[str, Any]) -> bool:
        return _holds(self.tree, job)


def _holds(tree: Any, job: Mapping[str, Any]) -> bool:
    match tree:
        case ("and", parts):
            return all(_holds(part, job) for part in parts)
        case ("or", parts):
            return any(_holds(part, job) for part in parts)
        case ("not", part):
            return not _holds(part, job)
        case (field, op, value):
            there = job.get(field)
            if op in {"=", "!="}:
                return (there == value) is (op == "=")
            return {"<": there < value, "<=": there <= value, ">": there > value, ">=": there >= value}[op]
    raise AssertionError(tree)


def _text(tree: Any) -> str:
    match tree:
        case ("and" | "or" as word, parts):
            return f" {word.upper()} ".join(f"({_text(part)})" for part in parts)
        case ("not", part):
            return f"NOT ({_text(part)})"
        case (field, op, datetime() as value):
            return f'{field} {op} "{value.isoformat()}"'
        case (field, op, value):
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'{field} {op} "{escaped}"'
    raise AssertionError(tree)


BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_comparisons = st.one_of(
    st.tuples(st.just("state"), st.sampled_from(["=", "!="]), st.sampled_from(["QUEUED", "CANCELLED", "RUNNING"])),
    st.tuples(st.sampled_from(["labels.team", "labels.note"]), st.sampled_from(["=", "!="]), st.sampled_from(NASTY_VALUES)),
    st.tuples(
        st.just("create_time"),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.integers(0, 6).map(lambda minutes: BEGIN + timedelta(minutes=minutes)),
    ),
)
_trees = st.recursive(
    _comparisons,
    lambda part: st.one_of(
        st.tuples(st.sampled_from(["and", "or"]), st.lists(part, min_size=2, max_size=3)), st.tuples(st.just("not"), part)
    ),
    max_leaves=8,
)


@pytest.fixture
async def jobs(world: World) -> dict[str, dict[str, Any]]:
    """Some jobs, by id, as a filter sees them."""
    made: dict[str, dict[str, Any]] = {}
    for number, value in enumerate(NASTY_VALUES[:7]):
        labels = {name: value for name, there in (("team", number % 3), ("note", number % 2)) if there}
        name = await world.submit(f"job-{number}", labels=labels)
        made[name.job_id] = {"state": "QUEUED", "create_time": world.clock.now(), **{f"labels.{key}": text for key, text in labels.items()}}
        if number % 2:
            await world.jobs.cancel(name)
            made[name.job_id]["state"] = "CANCELLED"
        world.clock.advance(60)
    return made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(tree=_trees)
async def test_the_database_finds_what_python_finds(world: World, jobs: dict[str, dict[str, Any]], tree: Any):
    asked = Asked(_text(tree), tree)
    page = await list_jobs(world.tools.db, pb.ListTrainingJobsRequest(parent="tenants/acme", filter=asked.text))
    assert {job.name.rsplit("/", 1)[-1] for job in page.training_jobs} == {name for name, job in jobs.items() if asked.finds(job)}
