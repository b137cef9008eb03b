"""The guards before and around calls: places for those that wait for their callers, times for messages and answers."""

_TESTS = "tests/service/api/test_doors.py"

GUARDS = (
    (
        "doors: a call that waits for its message has a place",
        "service/api/standing.py",
        "self._take(self.room, self.who or self.address, self.lose)",
        "pass",
        _TESTS,
    ),
    (
        "doors: a known caller's calls are counted by the caller",
        "service/api/standing.py",
        "self.room, self.who = self.rooms.known, principal",
        "pass",
        _TESTS,
    ),
    (
        "doors: an answer that is not read is given up",
        "service/api/standing.py",
        "call_later(self.slow_reader_s, self._cut_off)",
        "call_later(3600, self._cut_off)",
        _TESTS,
    ),
    (
        "doors: a message has a time to arrive",
        "service/api/doors.py",
        "async with asyncio.timeout(self._slow_writer_s):",
        "async with asyncio.timeout(3600):",
        _TESTS,
    ),
    (
        "doors: watches of health are counted",
        "service/api/doors.py",
        "self._watching if method == _WATCH_HEALTH else self._stream",
        "self._stream",
        _TESTS,
    ),
    (
        "doors: reports have places of their own",
        "service/api/doors.py",
        "self._rooms.reports if name.startswith(_REPORTS) else self._rooms.strangers",
        "self._rooms.strangers",
        _TESTS,
    ),
    (
        "doors: calls at work are counted for their tenant",
        "service/api/limiting.py",
        "with self._work.open(_whose(tenant)):",
        "if True:",
        _TESTS,
    ),
    (
        "reflection: what runs say is not told",
        "service/api/reflecting.py",
        "reflection.enable_server_reflection(names, server, pool=pool)",
        "reflection.enable_server_reflection(names, server)",
        "tests/service/api/test_errors.py",
    ),
    (
        "tokens: they end when their maker is removed",
        "service/tenancy/tenants.py",
        "await end_tokens(tx, tenant_id, principal, None)",
        "pass",
        "tests/service/api/test_administering.py",
    ),
    (
        "tokens: they end when their maker loses the role",
        "service/tenancy/tenants.py",
        "await end_tokens(tx, tenant_id, principal, role)",
        "pass",
        "tests/service/api/test_administering.py",
    ),
    (
        "tokens: a maker that has just lost its role makes none",
        "service/tenancy/holdings.py",
        "await check_still_may(tx, tenant, caller, role)",
        "pass",
        "tests/service/api/test_administering.py",
    ),
    (
        "tokens: an expiry of no calendar is refused",
        "service/access/oidc.py",
        'if not 0 < claims["exp"] < time.time() + MOST_LIFETIME_S:',
        "if False:",
        "tests/service/access/test_oidc.py",
    ),
    (
        "reports: an artifact lies in its job's folder",
        "service/reports.py",
        "_check_place(member, ending.artifact)",
        "pass",
        "tests/service/test_reports.py",
    ),
)
