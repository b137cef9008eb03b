"""The guards of versions that specs name, its tenant's, as they are when a job is accepted, and of what versions were made of."""

STARTS = "tests/service/jobs/test_starts_from_versions.py"
DELETION = "tests/service/registry/test_deletion.py"
VERSIONS = "tests/service/registry/test_versions.py"
GUARDS = (
    (
        "named versions: its tenant's alone",
        "service/db/named_versions.py",
        "own = [name for name in names if name.adapter.tenant == tenant]",
        "own, tenant = list(names), next((name.adapter.tenant for name in names), tenant)",
        STARTS,
    ),
    (
        "named versions: a job is not written with what an alias stood for before",
        "service/jobs/creation.py",
        "if has_moved:",
        "if False:",
        STARTS,
    ),
    (
        "named versions: a batch is not written with what an alias stood for before",
        "service/jobs/starts.py",
        "if any(await moved(tx, tenant, specs)):",
        "if False:",
        STARTS,
    ),
    (
        "named versions: what is deleted is not gone on from",
        "service/db/named_versions.py",
        "    if adapter.delete_time is not None or version.delete_time is not None:",
        "    if False:",
        STARTS,
    ),
    (
        "named versions: what does not fit is told",
        "service/jobs/starts.py",
        "if misfits := [*_misfits(spec, start, version)]:",
        "if misfits := []:",
        STARTS,
    ),
    (
        "parents: names of other tenants are left out",
        "service/control/adapter_parents.py",
        'if match is not None and match["tenant"] != tenant:',
        "if False:",
        VERSIONS,
    ),
    (
        "retention: an adapter's own rule goes before its tenant's",
        "service/reconcile/retention.py",
        "tenant = None if own else await",
        "tenant = await",
        DELETION,
    ),
    (
        "retention: a tenant's rule is its own",
        "service/tenancy/tenants.py",
        "theirs = (AdapterRow.tenant == tenant_id, AdapterRow.keep_newest == 0, AdapterRow.keep_days == 0)",
        "theirs = (AdapterRow.keep_newest == 0, AdapterRow.keep_days == 1)",
        DELETION,
    ),
)
