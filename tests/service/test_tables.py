"""The tables of `lorafleet doctor` and `simulate` at 80 columns, whatever is in them: the check, its state and what to do stay."""

import pytest

from service.doctor.command import table_of as findings_of
from service.doctor.findings import Finding, State
from service.simulate.command import table_of as reports_of
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


@pytest.mark.parametrize("odd", ODD)
def test_simulate_tells_who_and_how_many(odd: str) -> None:
    of_tenant = {ODD[odd]: WAITS}
    numbers = dict.fromkeys(("num_preemptions", "num_never_started", "num_unfinished", "num_rounds", "most_waiting", "makespan_s"), 0)
    report = Report(all=WAITS, by_class={}, by_tenant=of_tenant, utilisation=1, fairness=1, **numbers)
    lines = shown(reports_of({"admission": report}))
    assert width_of(lines) <= 80
    assert lines[1].split()[:3] == ["admission", "all", "1,000,000"]
    assert "admission" in lines[2]
