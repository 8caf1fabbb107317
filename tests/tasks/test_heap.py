"""Giving memory back does no harm, and asks the C library where it can be asked."""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from types import SimpleNamespace

import pytest

from segue.tasks.heap import _trim, give_back  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(autouse=True)
def afresh() -> Generator[None]:
    _trim.cache_clear()
    yield
    _trim.cache_clear()


def test_the_library_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def library(name: None) -> SimpleNamespace:
        return SimpleNamespace(malloc_trim=asked.append)

    monkeypatch.setattr(ctypes, "CDLL", library)
    give_back()
    give_back()
    assert asked == [0, 0]


@pytest.mark.parametrize("error", [OSError, TypeError, None])
def test_where_it_cannot_nothing_happens(monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None) -> None:
    def library(name: None) -> SimpleNamespace:
        if error is not None:
            raise error("no")
        return SimpleNamespace()

    monkeypatch.setattr(ctypes, "CDLL", library)
    give_back()
