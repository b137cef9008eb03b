"""The guards of the registry: one version for a job, its own tenant's alone, and aliases that one of two moves."""

VERSIONS, ALIASES, LISTS = (
    "tests/service/registry/test_versions.py",
    "tests/service/registry/test_aliases.py",
    "tests/service/api/lists/test_adapters.py",
)
GUARDS = (
    (
        "registry: a version in the transaction in which its job succeeds",
        "service/db/database.py",
        "await adapters.register(tx, list(tx.succeeded.values()))",
        "pass",
        VERSIONS,
    ),
    (
        "registry: a manifest is the one that was committed",
        "service/reconcile/versions.py",
        "if text is None or hashlib.sha256(text).hexdigest() != row.manifest_sha256:",
        "if text is None:",
        VERSIONS,
    ),
    (
        "registry: an adapter's facts are its newest version's",
        "service/db/adapters.py",
        "if version.number == adapter.newest_version:",
        "if True:",
        VERSIONS,
    ),
    (
        "registry: an adapter is its tenant's",
        "service/db/adapters.py",
        "select(AdapterRow).where(AdapterRow.tenant == tenant, AdapterRow.adapter_id == adapter_id)",
        "select(AdapterRow).where(AdapterRow.adapter_id == adapter_id)",
        ALIASES,
    ),
    (
        "registry: a page is its tenant's",
        "service/db/adapters.py",
        "select(AdapterRow).where(AdapterRow.tenant == tenant, *matches)",
        "select(AdapterRow).where(*matches)",
        LISTS,
    ),
    (
        "registry: an alias moves from where it was expected",
        "service/registry/aliases.py",
        "if move.expected is not None and move.expected != now:",
        "if False:",
        ALIASES,
    ),
    (
        "registry: an alias moves by its etag",
        "service/registry/aliases.py",
        "check_etag(str(move.name), alias_etag(row), move.etag)",
        "pass",
        ALIASES,
    ),
    (
        "registry: no alias of what is damaged",
        "service/registry/aliases.py",
        "if version.state == VersionState.DAMAGED.value:",
        "if False:",
        ALIASES,
    ),
)
