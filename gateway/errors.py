"""Errors, by what the caller does about them.

======================  =======================================================
``ConfigurationError``  stop before any I/O; exit 4
``StartError``          cannot start; exit 3
``UsageError``          the user's request cannot be met; exit 2, no traceback
``MessageError``        this message becomes a dead letter; go on
``TransientError``      hold what you have, back off, try again
``StandingError``       hold, try again slowly, unready, tell the operator what to run
``PoisonError``         isolate the rows the database refuses; the rest goes on
``ConflictError``       a unique violation: the same rows again, staged
``SpoolError``          nothing of it is on disk: hold what you have, unready, try again
======================  =======================================================

Driver errors never leave ``storage``, ``writer`` and ``mqtt``; they are translated there.
"""

from __future__ import annotations

from gateway.outcomes import Reason


class GatewayError(Exception):
    """Root of all errors of the gateway. ``str(error)`` is fit for an operator's eyes."""


class ConfigurationError(GatewayError):
    """The configuration is wrong: nothing was started."""


class StartError(GatewayError):
    """The daemon cannot start, and waiting would not help."""


class UsageError(GatewayError):
    """What was asked for cannot be done; the text says why and what to do instead."""


class MessageError(GatewayError):
    """The message cannot become readings; it ends as a dead letter.

    Attributes:
        reason: the closed reason, a metric label.
        detail: what exactly was wrong, for people; never the payload itself.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StoreError(GatewayError):
    """A database did not do what it was asked.

    Attributes:
        sqlstate: five characters, or None when the server could not be reached.
        of_all: no statement would have fared better: the server is away, full, read-only. False: it may be what was
            written that is at fault, although the server works.
    """

    def __init__(self, text: str, sqlstate: str | None = None, *, of_all: bool = True) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate
        self.of_all = of_all


class TransientError(StoreError):
    """Will pass by itself: hold, back off, try again."""


class StandingError(StoreError):
    """Somebody must mend something: hold, try again slowly, unready. The text says what to run."""


class PoisonError(StoreError):
    """The database refuses the data itself: isolate the rows."""


class ConflictError(StoreError):
    """A unique violation (23505): write the same rows staged."""


class DecompressionLimitError(StoreError):
    """53400 from TimescaleDB's decompression limit: the same rows, staged, with the limit lifted."""


class SpoolError(GatewayError):
    """The disk did not take what was to be spooled: none of it counts as written. Hold it, unready, try again."""


class SpoolFullError(SpoolError):
    """``spool.max_bytes`` is reached: hold it; there is room again when some of the spool has been drained."""
