"""What state each component is in: one truth for ``/ready``, ``gateway status`` and the logs."""

from __future__ import annotations

import enum
import time
from typing import Any


class ComponentState(enum.StrEnum):
    """State of a component."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    """For something that should come back by itself."""
    FAILED = "failed"
    """Somebody must mend something; the component keeps trying."""
    STOPPED = "stopped"


class Component:
    """One part whose state an operator wants to know."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = ComponentState.STARTING
        self.detail = ""
        self.since = time.time()
        self.last_error: str | None = None
        self.last_error_at: float | None = None

    def ready(self, detail: str = "") -> None:
        """It works."""
        self._become(ComponentState.READY, detail)

    def waiting(self, error: str) -> None:
        """It waits for something that should come back; ``error`` says for what and why."""
        self._fail(ComponentState.WAITING, error)

    def failed(self, error: str) -> None:
        """It cannot work until an operator mends something; ``error`` says what."""
        self._fail(ComponentState.FAILED, error)

    def stopped(self) -> None:
        """It was stopped in order."""
        self._become(ComponentState.STOPPED, "")

    def _fail(self, state: ComponentState, error: str) -> None:
        self.last_error, self.last_error_at = error, time.time()
        self._become(state, error)

    def _become(self, state: ComponentState, detail: str) -> None:
        if state is not self.state:
            self.since = time.time()
        self.state, self.detail = state, detail

    def as_dict(self) -> dict[str, Any]:
        """State, detail, since when, and the last error, for JSON."""
        return {
            "state": self.state.value,
            "detail": self.detail,
            "since": self.since,
            "last_error": self.last_error,
            "last_error_at": self.last_error_at,
        }


class Health:
    """All components. Ready when every one is."""

    def __init__(self) -> None:
        self._components: dict[str, Component] = {}
        self.stopping = False

    def component(self, name: str) -> Component:
        """The component of this name, made at first mention."""
        return self._components.setdefault(name, Component(name))

    @property
    def ready(self) -> bool:
        """Whether messages flow."""
        states = (c.state is ComponentState.READY for c in self._components.values())
        return not self.stopping and bool(self._components) and all(states)

    def as_dict(self) -> dict[str, Any]:
        """Everything ``/ready`` tells."""
        components = {name: c.as_dict() for name, c in sorted(self._components.items())}
        return {"ready": self.ready, "stopping": self.stopping, "components": components}
