"""Durations and sizes, read and written."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import quantities


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20s", 20),
        ("5ms", 0.005),
        ("10 min", 600),
        ("1.5h", 5400),
        ("2D", 172_800),
        ("30", 30),
        ("250us", 0.00025),
    ],
)
def test_durations_are_read_with_their_unit(text: str, seconds: float) -> None:
    """Text with a unit becomes seconds; a bare number is seconds already."""
    assert quantities.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 * 2**20), ("1 kB", 1000), ("2GB", 2 * 10**9), ("512", 512), ("1.5KiB", 1536)],
)
def test_sizes_are_read_with_their_unit(text: str, size: int) -> None:
    """Text with a unit becomes whole bytes; a bare number is bytes already."""
    assert quantities.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "soon", "20 apples", "-5s", "1e3s", "5MiB"])
def test_no_duration_says_how_to_write_one(text: str) -> None:
    """What is no duration is refused with an example and the units."""
    with pytest.raises(ValueError, match=r"write for example '20s' \(units: us, ms, s, min, h, d\)"):
        quantities.parse_duration(text)


@pytest.mark.parametrize("value", [20, 1.5, None, True])
def test_what_is_no_text_is_left_alone(value: object) -> None:
    """Numbers go to the type's own check."""
    assert quantities.parse_duration(value) is value
    assert quantities.parse_size(value) is value


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.005, "5ms"), (600, "10min"), (90, "90s"), (86_400, "1d")]
)
def test_durations_are_written_in_the_largest_fitting_unit(seconds: float, text: str) -> None:
    """The sample shows the unit that people would use."""
    assert quantities.format_duration(seconds) == text


@given(st.integers(0, 10**12))
def test_a_duration_survives_writing(micros: int) -> None:
    """Whatever whole number of microseconds is written reads back as it was."""
    seconds = micros / 1_000_000
    assert quantities.parse_duration(quantities.format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)


@given(st.integers(0, 2**50))
def test_a_size_survives_writing(size: int) -> None:
    """Whatever size is written reads back to the byte."""
    assert quantities.parse_size(quantities.format_size(size)) == size


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2000-01-01", "2000-01-01T00:00:00Z"),
        (dt.date(2000, 1, 1), "2000-01-01T00:00:00Z"),
        ("2010-06-01T02:00:00+02:00", "2010-06-01T00:00:00Z"),
        (dt.datetime(2010, 6, 1), "2010-06-01T00:00:00Z"),  # noqa: DTZ001 - as TOML has a local date-time
    ],
)
def test_moments_are_read_as_text_and_as_toml_has_them(written: object, shown: str) -> None:
    """Of UTC where they name no zone; written, they are read again."""
    moment = quantities.parse_moment(written)
    assert quantities.format_moment(moment) == shown
    assert quantities.parse_moment(shown) == moment


@pytest.mark.parametrize("written", ["", "soon", 946_684_800, None, "2000-13-01"])
def test_no_moment_says_how_to_write_one(written: object) -> None:
    """What is no moment is refused with an example."""
    with pytest.raises(ValueError, match="write for example '2000-01-01T00:00:00Z'"):
        quantities.parse_moment(written)
