"""What one adapter's registry ought to do, written down a second time. Shares no code with the service."""

from dataclasses import dataclass, field

BYTES = 7  # of each version


@dataclass
class ModelVersion:
    job: str
    deleted: bool = False
    purged: bool = False


@dataclass
class ModelAdapter:
    """All jobs' artifacts are versions of this one."""

    versions: list[ModelVersion] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)

    def move(self, alias: str, number: int, expected: int | None) -> str:
        """The kind of error; empty: it points there now."""
        if number > len(self.versions):
            return "NotFound"
        now = self.aliases.get(alias, 0)
        if now == number:
            return ""
        if expected is not None and expected != now:
            return "Aborted"
        if self.versions[number - 1].deleted:
            return "FailedPrecondition"
        self.aliases[alias] = number
        return ""

    def take_away(self, alias: str) -> str:
        self.aliases.pop(alias, None)
        return "" if self.versions else "NotFound"

    def delete(self, number: int) -> str:
        if number > len(self.versions):
            return "NotFound"
        version = self.versions[number - 1]
        if not version.deleted and number in self.aliases.values():
            return "FailedPrecondition"
        version.deleted = True
        return ""

    def undelete(self, number: int) -> str:
        if number > len(self.versions):
            return "NotFound"
        version = self.versions[number - 1]
        if version.purged:
            return "FailedPrecondition"
        version.deleted = False
        return ""

    def purge(self) -> None:
        for version in self.versions:
            version.purged = version.deleted

    @property
    def stored_bytes(self) -> int:
        return BYTES * sum(not version.purged for version in self.versions)
