"""Lists what each role may do. Pure, and the only place that says so; docs/security.md shows the same table."""

from enum import StrEnum

from service.access.identity import Role


class Permission(StrEnum):
    """What a call needs in the tenant that it is about."""

    VIEW = "view"  # read, list and watch jobs, batches, generations, logs and adapters; read what the tenant is set up as; download
    SUBMIT = "submit"  # create jobs, batches and generations, plan them, end and retry one's own; delete one's own adapters, move aliases
    OPERATE = "operate"  # end, retry and delete the others' too; move production, set rules of retention
    MANAGE = "manage"  # members, API tokens, webhooks, the audit log
    ADMINISTER = "administer"  # tenants, their limits, grants and reservations: no role of a tenant, its own limits least of all


LEAST_ROLE: dict[Permission, Role] = {
    Permission.VIEW: Role.VIEWER,
    Permission.SUBMIT: Role.SUBMITTER,
    Permission.OPERATE: Role.OPERATOR,
    Permission.MANAGE: Role.ADMIN,
}


def allows(role: Role, permission: Permission) -> bool:
    """Whether a member with that role may do that."""
    least = LEAST_ROLE.get(permission)
    return least is not None and role.includes(least)
