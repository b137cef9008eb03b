"""Guards that keep one tenant's files and rows from hurting anybody else."""

UNTRUSTED = "tests/service/untrusted/test_parsing.py"
SHAPES = "tests/service/planning/test_base_shapes.py"
STORAGE = "tests/service/store/test_client.py"
APART = "tests/service/reconcile/test_rows_apart.py"

GUARDS = (
    (
        "isolation: a FIFO is not opened",
        "lorafleet/contract/plain_files.py",
        "        _check(os.stat(place.name, dir_fd=held, follow_symlinks=False))\n",
        "",
        STORAGE,
    ),
    (
        "isolation: what is no plain file is refused",
        "lorafleet/contract/plain_files.py",
        "    if not stat.S_ISREG(found.st_mode):",
        "    if False:",
        STORAGE,
    ),
    (
        "isolation: an object's size is known before it is read",
        "service/store/bounded_reads.py",
        "if size_bytes <= most_bytes and len(data := read(uri, body, most_bytes + 1)) <= most_bytes:",
        "if data := read(uri, body, size_bytes):",
        STORAGE,
    ),
    (
        "isolation: a body that does not end is given up",
        "service/store/bounded_reads.py",
        "if time.monotonic() - began_s > BODY_WITHIN_S:",
        "if False:",
        STORAGE,
    ),
    (
        "isolation: what the machine lacks is not taken for a tenant's fault",
        "service/untrusted/parsing.py",
        "    if code is None or code == -signal.SIGKILL:",
        "    if False:",
        UNTRUSTED,
    ),
    (
        "isolation: the parser's CPU time is limited",
        "service/untrusted/child.py",
        "    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))",
        "    resource.setrlimit(resource.RLIMIT_CPU, (60, 61))",
        UNTRUSTED,
    ),
    (
        "isolation: JSON is not parsed deeper than it may be",
        "service/untrusted/child.py",
        "    if brackets:\n",
        "    if False:\n",
        UNTRUSTED,
    ),
    (
        "isolation: brackets within strings are no depth",
        "service/untrusted/child.py",
        '_STRINGS.sub(b"", text)',
        "text",
        UNTRUSTED,
    ),
    (
        "isolation: numbers of a base are whole and within limits",
        "service/untrusted/child.py",
        "if type(value) is not int or not least <= value <= most:",
        "if type(value) is not int:",
        f"{UNTRUSTED} {SHAPES}",
    ),
    (
        "isolation: the parser's memory is limited",
        "service/untrusted/child.py",
        '("AS", MEMORY_BYTES), ',
        "",
        UNTRUSTED,
    ),
    (
        "isolation: a parser that takes too long is ended",
        "service/untrusted/parsing.py",
        "                process.kill()\n                await process.wait()\n",
        "                pass\n",
        SHAPES,
    ),
    (
        "isolation: a tenant has one lane",
        "service/core/concurrency.py",
        "async with lane, self._at_once:",
        "async with self._at_once:",
        UNTRUSTED,
    ),
    (
        "isolation: nobody waits for bases that others read",
        "service/planning/base_shapes.py",
        "await asyncio.wait(begun, timeout=within_s)",
        "await asyncio.wait(begun)",
        SHAPES,
    ),
    (
        "isolation: one row's exception passes no loop",
        "service/db/row_faults.py",
        "        trouble.error = error\n        note(loop, row, error)\n",
        "        raise\n",
        APART,
    ),
    (
        "isolation: a database that cannot be written is no row's own",
        "service/db/row_faults.py",
        "OF_THE_LOOP = (Contended, Unreachable, Unwritable)",
        "OF_THE_LOOP = (Contended, Unreachable)",
        APART,
    ),
    (
        "isolation: of many rows the one that raises fails alone",
        "service/db/row_faults.py",
        "        if len(things) > 1:\n            half",
        "        if False:\n            half",
        APART,
    ),
    (
        "isolation: a run that raised is put off",
        "service/reconcile/locked_rows.py",
        "        setattr(held, due, tx.now + timedelta(seconds=AGAIN_S))\n",
        "",
        APART,
    ),
    (
        "isolation: an unforeseen error's text is not told",
        "service/db/row_faults.py",
        'return f"an error of the service ({type(error).__name__}), whose operators find it in the log"',
        "return str(error)",
        APART,
    ),
)
