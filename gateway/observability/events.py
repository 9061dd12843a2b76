"""What happens, each in one call that logs *and* counts. Per batch or per connection, never per message.

Event names are constant; what varies goes into fields. Level says who must act: error an operator now,
warning is for an operator some day, info for none. No payload above debug level, secrets never.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from gateway.observability import metrics
from gateway.observability.quiet import Quiet

log: structlog.stdlib.BoundLogger = structlog.get_logger("gateway")


def mqtt_connected(*, broker: str, client_id: str, session_present: bool, protocol: str, first: bool) -> None:
    """Connected and subscribed."""
    metrics.connected.set(1)
    if not first:
        metrics.reconnects.inc()
    log.info(
        "mqtt connected",
        broker=broker,
        client_id=client_id,
        session_present=session_present,
        protocol=protocol,
    )


def mqtt_disconnected(*, broker: str, error: str, retry_in: float) -> None:
    """The connection is gone, or could not be made; another attempt follows."""
    metrics.connected.set(0)
    log.warning("mqtt disconnected", broker=broker, error=error, retry_in_seconds=round(retry_in, 2))


def mqtt_closed(*, broker: str) -> None:
    """The connection was closed in order, by us."""
    metrics.connected.set(0)
    log.info("mqtt closed", broker=broker)


def mqtt_fell_back(*, broker: str, error: str) -> None:
    """The broker does not speak MQTT 5; going on with 3.1.1."""
    log.warning("mqtt falls back to 3.1.1", broker=broker, error=error)


def mqtt_redelivers_under_other_ids(*, messages: int, first: bool) -> None:
    """A resumed session, and what was unacknowledged did not come again under its packet ids, or not first.

    Readings without a time of their own among so many messages may be stored twice; see docs/brokers.md.
    """
    (log.warning if first else log.debug)("mqtt redelivers under other packet ids", messages=messages)


def mqtt_redeliveries_look_new(*, how: str, first: bool) -> None:
    """What comes in a resumed session seems to be stored already, and its acknowledgement lost; nothing proves it.

    Readings without a time of their own are stored twice then; see docs/brokers.md.
    """
    (log.warning if first else log.debug)("mqtt redeliveries look new", how=how)


def mqtt_foreign_subscription(*, client_id: str, topic: str) -> None:
    """Messages come at QoS 2, to which a gateway never subscribes: the session holds another program's subscriptions.

    They are taken like all others. MQTT cannot tell which filter it is: choose another ``mqtt.client_id``, or end the
    session (a clean start under the client id) while the gateway is stopped and has read it empty.
    """
    log.warning("mqtt foreign subscription", client_id=client_id, topic=topic)


def mqtt_unsubscribed(*, topics: Sequence[str], refused: Sequence[str]) -> None:
    """Subscriptions of an earlier configuration were ended; ``refused``: those that the broker does not end."""
    (log.warning if refused else log.info)("mqtt unsubscribed", topics=list(topics), refused=list(refused))


def mqtt_promise_at_risk(*, broker: str, problem: str) -> None:
    """The broker accepted us, and cannot do what delivery at least once needs."""
    log.warning("mqtt broker cannot keep the promise", broker=broker, problem=problem)


def mqtt_session_shortened(*, asked: float, given: float) -> None:
    """The broker keeps the session for less than ``mqtt.session_expiry``: a longer absence loses messages."""
    log.warning("mqtt session shortened", asked_seconds=asked, given_seconds=given)


def mqtt_session_lost(*, client_id: str, last_used_seconds: float) -> None:
    """The broker had a session of ours and has it no more: what was published meanwhile, or unacknowledged, is lost.

    It expired, or the broker was restarted without persistence, or another client ended it.
    """
    metrics.sessions_lost.inc()
    log.warning("mqtt session lost", client_id=client_id, last_used_seconds=round(last_used_seconds, 1))


def mqtt_session_left(*, client_id: str, last_used_seconds: float, remedy: str) -> None:
    """A session under another client id may still collect messages at the broker, and nothing reads it."""
    log.warning(
        "mqtt session left", client_id=client_id, last_used_seconds=round(last_used_seconds, 1), remedy=remedy
    )


def mqtt_session_emptied(*, client_id: str, messages: int) -> None:
    """A session of an earlier set-up was read empty and subscribes to nothing any more."""
    log.info("mqtt session emptied", client_id=client_id, messages=messages)


def session_not_kept(*, seconds: float) -> None:
    """A new session begins, and no store took note of it in time: a crash before one does may double messages."""
    log.warning("mqtt session not kept yet", waited_seconds=seconds)


def mqtt_subscription_refused(*, topic: str, error: str) -> None:
    """The broker refuses a subscription: that stream gets nothing."""
    log.error("mqtt subscription refused", topic=topic, error=error)


def batch_stored(*, path: str, messages: int, rows: int, seconds: float) -> None:
    """A batch is committed, of the live path or of the spool's."""
    metrics.commit_seconds.labels(path).observe(seconds)
    metrics.batch_messages.labels(path).observe(messages)
    metrics.rows.labels(path).inc(rows)
    log.debug("batch stored", path=path, messages=messages, rows=rows, seconds=round(seconds, 4))


def dead_lettered(*, stream: str, reason: str, count: int, example: str) -> None:
    """Messages of one batch became dead letters; ``example`` is the detail of one of them.

    Logged at most once in ten seconds for a stream and reason, with how many there were meanwhile.
    """
    metrics.dead_letters.labels(stream, reason).inc(count)
    total = _quiet.due((stream, reason), count)
    if total:
        log.info("dead lettered", stream=stream, reason=reason, count=total, example=example)


def dead_letters_not_kept(*, stream: str, count: int) -> None:
    """A device, or all unknown ones, had more dead letters within the hour than are kept: these were only counted."""
    metrics.dead_letters_not_kept.labels(stream).inc(count)
    if due := _quiet.due(("dead letters not kept", stream), count):
        log.warning("dead letters not kept", stream=stream, count=due)


def dead_letters_prevail(*, stream: str, dead_letters: int, messages: int) -> None:
    """Of a stream's messages of the last minute more than `watchdog.dead_letter_share` became dead letters."""
    metrics.dead_letters_prevail.labels(stream).set(1)
    log.warning(
        "dead letters prevail",
        stream=stream,
        dead_letters=dead_letters,
        messages=messages,
        hint="gateway dead-letter list",
    )


def dead_letters_receded(*, stream: str, dead_letters: int, messages: int) -> None:
    """They are below that share again."""
    metrics.dead_letters_prevail.labels(stream).set(0)
    log.info("dead letters receded", stream=stream, dead_letters=dead_letters, messages=messages)


def held_back(*, count: int, where: str, error: str) -> None:
    """Messages fail although the server works: they are set apart, so that others go on. Logged like dead letters."""
    metrics.held_back.labels(where).inc(count)
    total = _quiet.due(("held back", where), count)
    if total:
        log.warning("held back", count=total, where=where, error=error)


_told: set[tuple[str, str]] = set()


def readings_overwritten(*, stream: str, count: int, on_conflict: str) -> None:
    """Readings fall on one device and time and differ: one of their values is kept. Warned of once a stream."""
    metrics.readings_overwritten.labels(stream).inc(count)
    _once(
        ("readings overwritten", stream),
        "several readings of one device have the same time and other values; send finer timestamps, or UTC",
        on_conflict=on_conflict,
    )


def message_ids_reused(*, stream: str, count: int) -> None:
    """Messages carry ids that others had before them: counters that start again. Warned of once a stream."""
    metrics.message_ids_reused.labels(stream).inc(count)
    _once(("message ids reused", stream), "an id of a message comes again with another payload")


def _once(key: tuple[str, str], hint: str, **fields: str) -> None:
    if key not in _told:
        _told.add(key)
        log.warning(key[0], stream=key[1], hint=hint, **fields)


_quiet = Quiet(every=10)
_limited = Quiet(every=3600)
"""By tenant: the limit is one of an hour."""


def ignored(*, stream: str, reason: str, count: int) -> None:
    """Messages were ignored because configuration says so."""
    metrics.ignored.labels(stream, reason).inc(count)
    log.debug("ignored", stream=stream, reason=reason, count=count)


def flagged(*, stream: str, reason: str, count: int) -> None:
    """Readings break the rules of their device types, and are stored with a mark."""
    metrics.flagged.labels(stream, reason).inc(count)
    log.debug("flagged", stream=stream, reason=reason, count=count)


def store_failed(
    *, database: str, verdict: str, sqlstate: str | None, error: str, retry_in: float, news: bool
) -> None:
    """A database did not do what it was asked; what is held stays held. Logged when it is ``news``."""
    metrics.store_errors.labels(verdict, sqlstate or "none").inc()
    level = (log.error if verdict == "standing" else log.warning) if news else log.debug
    level(
        "store failed",
        database=database,
        verdict=verdict,
        sqlstate=sqlstate,
        error=error,
        retry_in_seconds=round(retry_in, 2),
    )


def store_recovered(*, database: str, seconds: float) -> None:
    """A database does again what it is asked."""
    log.info("store recovered", database=database, away_seconds=round(seconds, 1))


def partitions_made(*, names: Sequence[str]) -> None:
    """Partitions of days to come, on plain PostgreSQL."""
    log.info("partitions made", partitions=list(names))


def partitions_postponed(*, names: Sequence[str], reason: str, retry_in: float, news: bool) -> None:
    """Something is in the way of partitions; without them readings go into the DEFAULT partition."""
    (log.warning if news else log.debug)(
        "partitions postponed", partitions=list(names), reason=reason, retry_in_seconds=retry_in
    )


def partition_left(*, name: str) -> None:
    """The DEFAULT partition has too many readings of this day, or is too large, to change that beside the writers."""
    table, _, day = name.rpartition("_")
    log.warning(
        "partition not made",
        partition=name,
        hint=f"readings of this day stay in {table}_default, and nothing is lost; to move them, and have writers and "
        f"readers of {table}_default wait meanwhile, run as the owner of the tables: "
        f"SELECT gateway_make_partition('{table}', '{day}', whole => true)",
    )


def spool_recovered(*, torn_bytes: int, corrupt: int, unknown: tuple[str, ...]) -> None:
    """At start, the spool was not just as it should be: a torn tail was cut, damage found, strange files left."""
    log.warning("spool recovered", torn_bytes=torn_bytes, corrupt=corrupt, unknown=unknown)


def spool_left(*, folder: str, records: int) -> None:
    """Messages wait in a folder that nothing drains any more, after a change of ``--workers``; about so many."""
    log.warning("spool left", folder=folder, records=records, remedy="gateway spool drain")


def spool_damaged(*, segment: str, offset: int, length: int) -> None:
    """Bytes of the spool are not what was written: the records in them cannot be read, and are quarantined."""
    metrics.spool_corrupt.inc()
    log.error(
        "spool damaged", segment=segment, offset=offset, length=length, quarantined=f"{segment}.corrupt"
    )


def spool_segment_missing(*, segment: str, records: int) -> None:
    """Somebody has deleted a segment that was not drained; about so many records are gone."""
    log.error("spool segment missing", segment=segment, records=records)


def spool_segment_stuck(*, segment: str, error: str) -> None:
    """A drained segment cannot be deleted; it is tried again, and drained again after a restart."""
    log.warning("spool segment stuck", segment=segment, error=error)


def books_do_not_balance(*, stream: str, received: int, missing: int) -> None:
    """The conservation law failed: a defect of the gateway itself."""
    log.error("books do not balance", stream=stream, received=received, missing=missing)


def registry_purged(*, reason: str) -> None:
    """The cache of devices was emptied."""
    log.info("registry purged", reason=reason)


def devices_provisioned(*, tenant: str, count: int, device_type: str) -> None:
    """Unknown devices were entered into the registry, as the stream's policy says."""
    log.info("devices provisioned", tenant=tenant, count=count, device_type=device_type)


def provisioning_limited(*, tenant: str, count: int, limit: int) -> None:
    """A tenant has as many new devices as an hour may bring; messages of further ones become dead letters."""
    due = _limited.due((tenant, ""), count)
    if due:
        log.warning("provisioning limited", tenant=tenant, count=due, limit=limit)


def notify_failed(*, error: str) -> None:
    """A word to systemd did not get there; it may take the daemon for hung."""
    log.warning("systemd not reached", error=error)


def provisioning_failed(*, tenant: str, count: int, error: str) -> None:
    """Unknown devices could not be entered into the registry; their messages become dead letters."""
    log.error("provisioning failed", tenant=tenant, count=count, error=error)


def defect(*, stage: str, error: str, count: int) -> None:
    """The gateway itself failed where it should not, on so many messages; they end in a way that loses nothing."""
    log.error("defect", stage=stage, error=error, count=count)


def reading_paused(*, held_bytes: int) -> None:
    """Memory is full: the socket is not read, the broker keeps the rest."""
    log.info("reading paused", held_bytes=held_bytes)


def reading_resumed(*, held_bytes: int) -> None:
    """There is room in memory again."""
    log.info("reading resumed", held_bytes=held_bytes)


def exposed(*, warning: str) -> None:
    """A server on the network is not proven to be the right one, or is spoken to in the clear."""
    log.warning("exposed", warning=warning)


def started(*, client_id: str, streams: int) -> None:
    """The daemon's tasks run; servers may still be waited for."""
    log.info("started", client_id=client_id, streams=streams)


def stopping(*, in_flight: int) -> None:
    """The daemon was told to stop; what is held is written first."""
    log.info("stopping", in_flight=in_flight)


def stopped(*, unsettled: int, balanced: bool) -> None:
    """The end. Unsettled messages were not acknowledged: the broker delivers them again."""
    (log.warning if unsettled else log.info)("stopped", unsettled=unsettled, balanced=balanced)


def task_died(*, error: BaseException) -> None:
    """A task of the daemon ended with an error it should have dealt with: a defect; the daemon stops."""
    log.error("task died", error=repr(error), notes=getattr(error, "__notes__", []), exc_info=error)


def spool_failed(*, error: str) -> None:
    """The disk does not take what should be spooled; it is held, and the broker keeps the rest."""
    log.error("spool failed", error=error)


def spooling_began() -> None:
    """The database keeps messages waiting: they go to the disk."""
    log.warning("spooling began")


def spooling_ended(*, records: int) -> None:
    """The database works again; what is on disk is drained beside live traffic."""
    log.info("spooling ended", records=records)


def careful(*, deaths: int, seconds: float) -> None:
    """The process before did not end in order, so many in a row: messages are taken one by one for a while."""
    log.warning("careful", ends_without_a_word=deaths, seconds=round(seconds))


def message_set_apart(*, digest: str, size_bytes: int) -> None:
    """A message ended the process three times, twice alone: it becomes a dead letter, unread."""
    log.error("message set apart", digest=digest, size_bytes=size_bytes, remedy="gateway dead-letter show")


def no_progress(*, what: str, seconds: float, oldest: list[dict[str, object]]) -> None:
    """All servers work, messages are held, and nothing is settled: a defect. ``what``: the live path or the drain."""
    log.error("no progress", what=what, seconds=round(seconds), oldest=oldest)


def worker_started(*, worker: str, pid: int) -> None:
    """A worker process runs."""
    log.info("worker started", worker=worker, pid=pid)


def worker_died(*, worker: str, exit_code: int, retry_in: float) -> None:
    """A worker ended by itself; it is started again."""
    log.error("worker died", worker=worker, exit_code=exit_code, retry_in_seconds=round(retry_in, 1))
