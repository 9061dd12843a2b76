"""What unit tests of several packages need."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def own_logging() -> Iterator[None]:
    """A test may configure logging: all is as before afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers.clear()  # so that configure() does not close those of pytest
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
