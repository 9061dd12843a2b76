"""Ask a running daemon how it fares."""

from __future__ import annotations

import ipaddress
from typing import Any

import aiohttp

from gateway import errors, settings


def address(observability: settings.ObservabilitySettings) -> str:
    """Where a daemon with these settings answers, seen from its own host.

    Raises:
        UsageError: it answers nowhere.
    """
    if observability.port == 0:
        raise errors.UsageError(
            "observability.port is 0, so the daemon answers nowhere: set a port, or give --url"
        )
    return f"http://{_reachable(observability.listen)}:{observability.port}"


async def ask(url: str, *, timeout: float = 5) -> dict[str, Any]:
    """What ``/status`` says; see :meth:`gateway.observability.status.StatusReport.as_dict`.

    Args:
        url: of the daemon, without the path.
        timeout: seconds for the whole answer.

    Raises:
        UsageError: nothing answers there, or something else than a gateway.
    """
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(timeout)) as session,
            session.get(f"{url.rstrip('/')}/status") as answer,
        ):
            answer.raise_for_status()
            status = await answer.json()
    except (aiohttp.InvalidURL, aiohttp.ClientResponseError, ValueError) as error:
        raise errors.UsageError(
            f"what answers at {url} is no gateway: check --url, observability.port"
        ) from error
    except TimeoutError as error:
        raise errors.UsageError(
            f"{url} does not answer within {timeout:g} s: the daemon hangs, or its host"
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise errors.UsageError(
            f"no daemon answers at {url}: is it running, and is that its address?"
        ) from error
    return _checked(status, url)


def _checked(status: Any, url: str) -> dict[str, Any]:
    if not isinstance(status, dict) or not {"streams", "total", "components"} <= status.keys():
        raise errors.UsageError(f"what answers at {url} is no gateway: check --url, observability.port")
    return status


def _reachable(listen: str) -> str:
    """An address to connect to: what listens on all addresses is reached on loopback."""
    try:
        found = ipaddress.ip_address(listen)
    except ValueError:
        return listen
    if found.is_unspecified:
        return "127.0.0.1" if found.version == 4 else "[::1]"
    return f"[{found}]" if found.version == 6 else str(found)
