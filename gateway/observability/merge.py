"""Several daemons as one: their answers, taken together. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from gateway.observability.equation import NOTHING

Answer = Mapping[str, Any]
"""What a daemon's ``/status`` says."""


def statuses(answers: Mapping[str, Answer | None], *, stopping: bool) -> dict[str, Any]:
    """One status of all workers, by name; None: that worker does not answer.

    Counts are added up. Components keep their worker's name before their own.
    """
    heard = {name: answer for name, answer in answers.items() if answer is not None}
    return {
        "version": next((answer["version"] for answer in heard.values()), ""),
        "uptime_seconds": max((answer["uptime_seconds"] for answer in heard.values()), default=0.0),
        "balanced": all(answer["balanced"] for answer in heard.values()),
        "total": _added([NOTHING, *(answer["total"] for answer in heard.values())]),
        "streams": _added_by_name(answer["streams"] for answer in heard.values()),
        "rates": _added(answer["rates"] for answer in heard.values()),
        "last_message_at": max(
            filter(None, (answer["last_message_at"] for answer in heard.values())), default=None
        ),
        "dead_letters": _added_by_name(answer["dead_letters"] for answer in heard.values()),
        "drained": _added_by_name(answer["drained"] for answer in heard.values()),
        "ready": len(heard) == len(answers) and all(answer["ready"] for answer in heard.values()),
        "stopping": stopping,
        "components": {
            **{name: _silent(name) for name in answers if name not in heard},
            **{
                f"{name}/{component}": state
                for name, answer in heard.items()
                for component, state in answer["components"].items()
            },
        },
        "figures": _figures([answer["figures"] for answer in heard.values()]),
    }


def expositions(texts: Mapping[str, str]) -> bytes:
    """One page of metrics: every sample of every worker, with a label ``worker``."""
    registry = CollectorRegistry()
    registry.register(_Page(texts))
    return generate_latest(registry)


class _Page(Collector):
    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        """Families of one name stand together, as the format asks."""
        families: dict[str, Metric] = {}
        for worker, text in self._texts.items():
            for found in text_string_to_metric_families(text):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                family.samples += [_labelled(sample, worker) for sample in found.samples]
        return families.values()


def _labelled(sample: Sample, worker: str) -> Sample:
    return sample._replace(labels={**sample.labels, "worker": worker})


def _silent(name: str) -> dict[str, Any]:
    return {
        "state": "waiting",
        "detail": f"{name} does not answer: it starts, or is started again",
        "since": 0,
        "last_error": None,
        "last_error_at": None,
    }


def _added(books: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for book in books:
        total.update(book)
    return dict(total)


def _added_by_name(several: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    grouped: dict[str, list[Mapping[str, int]]] = {}
    for books in several:
        for name, book in books.items():
            grouped.setdefault(name, []).append(book)
    return {name: _added(books) for name, books in grouped.items()}


def _figures(several: list[Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for figures in several for name in figures)
    return {name: _figure([figures[name] for figures in several if name in figures]) for name in names}


def _figure(values: list[Any]) -> Any:
    """Numbers are added. Of distributions the mean is weighed, and a quantile is the worst worker's."""
    if not isinstance(values[0], Mapping):
        return sum(values)
    count = sum(value["count"] for value in values)
    weighed = sum(value["mean"] * value["count"] for value in values if value["count"])
    quantiles = {
        name: max((value[name] for value in values if value[name] is not None), default=None)
        for name in ("p50", "p99")
    }
    return {"count": count, "mean": weighed / count if count else None, **quantiles}
