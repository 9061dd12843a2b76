"""How each database stands to the revisions of this gateway."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gateway import errors, settings
from gateway.storage import engines, migrate, revisions
from gateway.storage.revisions import Name


@dataclass(frozen=True)
class SchemaStatus:
    """One database.

    Attributes:
        engine: edition and version, for people.
        current: revision it is at; None: none is applied.
        pending: revisions to apply, oldest first.
        error: why it cannot be used or compared.
    """

    name: Name
    head: str
    reachable: bool
    server_version: str | None = None
    engine: str | None = None
    current: str | None = None
    pending: tuple[str, ...] = ()
    error: str | None = None

    @property
    def up_to_date(self) -> bool:
        """Reachable, and nothing to apply."""
        return self.reachable and self.error is None and not self.pending


async def status(name: Name, database: settings.DatabaseSettings) -> SchemaStatus:
    """Where a database stands. An unreachable one is an answer, not an error.

    Raises:
        ConfigurationError: the DSN cannot be used.
    """
    known = [revision.id for revision in revisions.history(name)]
    unknown = SchemaStatus(name, known[-1], reachable=False)
    try:
        async with migrate.session(name, database) as connection:
            engine = await engines.detect(connection)
    except errors.StoreError as error:
        return dataclasses.replace(unknown, error=str(error))
    found = dataclasses.replace(
        unknown, reachable=True, server_version=engine.server_version, engine=engine.describe()
    )
    try:
        return _compared(found, await migrate.current(name, database), known)
    except errors.StoreError as error:
        return dataclasses.replace(found, error=str(error))


def _compared(found: SchemaStatus, current: str | None, known: list[str]) -> SchemaStatus:
    if current is not None and current not in known:
        text = f"revision {current} is not known here: a newer gateway migrated this database; use that one"
        return dataclasses.replace(found, current=current, error=text)
    applied = 0 if current is None else known.index(current) + 1
    return dataclasses.replace(found, current=current, pending=tuple(known[applied:]))
