"""The layout ``document``: all metrics of a reading in one JSON object, one row a device and time."""

from __future__ import annotations

from gateway.writer.layouts.base import Layout
from gateway.writer.layouts.document import encoding, statements
from gateway.writer.layouts.document.united import UnitedDocuments

DOCUMENT = Layout(
    name="document",
    columns=encoding.COLUMNS,
    staged=statements.STAGED,
    content=statements.CONTENT,
    encode=encoding.encode,
    take_apart=encoding.take_apart,
    united=UnitedDocuments,
    statements=statements.statements,
)
