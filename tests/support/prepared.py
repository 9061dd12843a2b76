"""Servers that begin with a copy of a cluster which was initialised, and got migrated templates, once in this run.

All copies have one system identifier. Where servers are told apart by it, as after a fail-over: ``Postgres()``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from tests.support import run
from tests.support.databases import Workshop
from tests.support.servers import Postgres

P = TypeVar("P", bound=Postgres)


def server(kind: type[P], **arguments: Any) -> P:
    """A server of this kind, made with these arguments and not started yet.

    Raises:
        MissingServerError: it is not on this machine.
    """
    kind.require()
    cluster = run.once(f"cluster-{kind.__name__}", lambda path: _prepare(kind, path), kind.place)
    return kind(copy_of=cluster, **arguments)


def _prepare(kind: type[Postgres], path: Path) -> None:
    with kind() as made:
        made.start()
        Workshop(made).prepare()
        made.stop()
        made.cluster.rename(path)
