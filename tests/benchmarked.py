"""Benchmarks, run in the process of a test: libraries take longer to load than most of them to run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def benchmark(name: str, *arguments: str | Path) -> Generator[Any]:
    """The module of a benchmark, called with these arguments; gone afterwards, with what it imported of others."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        # Not by its own name, which a package of the tests may have.
        spec = importlib.util.spec_from_file_location(f"benchmark of {name}", BENCHMARKS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            yield module
        finally:
            for each in set(sys.modules) - before:
                if str(getattr(sys.modules[each], "__file__", "")).startswith(str(BENCHMARKS)):
                    del sys.modules[each]


def run(name: str, *arguments: str | Path, **constants: Any) -> str:
    """What a benchmark prints; with other values for some of its constants, to be quick."""
    with benchmark(name, *arguments) as module, redirect_stdout(StringIO()) as out:
        for constant, value in constants.items():
            assert type(value) is type(getattr(module, constant))
            setattr(module, constant, value)
        module.main()
    return out.getvalue()
