"""The tables of `lorafleet doctor` and `simulate` at 80 columns, whatever is in them: the check, its state and what to do stay."""

import pytest

from service.doctor.command import table_of as findings_of
from service.doctor.findings import Finding, State
from service.simulate.command import table_of as reports_of
from service.simulate.command import totals_of
from service.simulate.report import Report, Waits
from tests.lorafleet.shown import ODD, shown, width_of

WAITS = Waits(num_jobs=1_000_000, mean_s=6e7, p50_s=6e7, p90_s=6e7, p99_s=6e7, max_s=6e7)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("width", [80, 200])
def test_doctor_tells_check_and_state_and_all_of_the_rest(odd: str, width: int) -> None:
    lines = shown(findings_of([Finding(check="report address", state=State.WARNING, message=ODD[odd], todo="do this")]), width)
    assert width_of(lines) <= width
    assert lines[1].startswith("report address  WARNING")
    assert "do this" in lines[1]
    assert not any("…" in line for line in lines)


def a_report(*tenants: str, number: int = 0) -> Report:
    numbers = dict.fromkeys(("num_preemptions", "num_never_started", "num_unfinished", "num_rounds", "most_waiting", "makespan_s"), number)
    by_class = {"low": WAITS} if tenants else {}
    return Report(all=WAITS, by_class=by_class, by_tenant=dict.fromkeys(tenants, WAITS), utilisation=1, fairness=1, **numbers)


@pytest.mark.parametrize("odd", ODD)
def test_simulate_tells_who_and_how_many(odd: str) -> None:
    lines = shown(reports_of({"admission": a_report(ODD[odd])}))
    assert width_of(lines) <= 80
    assert lines[1].split()[:3] == ["admission", "all", "1,000,000"]
    assert "admission" in lines[2]


def test_a_tenant_that_is_called_like_a_class_has_a_row_of_its_own() -> None:
    [_, *lines] = shown(reports_of({"admission": a_report("low", "all")}))
    assert [line[12:24].strip() for line in lines] == ["all", "class low", "tenant low", "tenant all"]


def test_simulate_tells_all_totals_in_a_line_each() -> None:
    lines = shown(totals_of({"admission": a_report(number=1_000_000), "fifo": a_report()}))
    assert width_of(lines) <= 80
    assert [line.split() for line in lines[1:]] == [
        ["admission", "100.0%", "1.000", *["1,000,000"] * 3],
        ["fifo", "100.0%", "1.000", "0", "0", "0"],
    ]
