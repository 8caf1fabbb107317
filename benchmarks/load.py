"""How long it takes until a model is there, by parts, in a fresh process.

    python benchmarks/load.py                     # the embedded model
    python benchmarks/load.py --model emoji-fast

Libraries are imported once per process; `segue.load` is the call itself, the first one and the quickest of several.
The hash is taken when a result is recorded, and not on loading.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from typing import Any


def seconds(work: Callable[[], Any]) -> float:
    """How long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(source: str | None, repeat: int) -> dict[str, float]:
    """Seconds by part, in the order in which they are spent."""
    parts = {
        f"import {module}": seconds(lambda module=module: importlib.import_module(module))
        for module in (
            "segue",
            "torch",
            "segue.models.loading",
            "diffusers",
            "transformers",
            "segue.models.families.sd",
        )
    }
    from segue.zoo import load
    from segue.zoo.load import default, find_card

    parts["read the card"] = seconds(lambda: find_card(source or default()))
    parts["segue.load, first"] = seconds(lambda: load(source))
    parts["segue.load, quickest"] = min(seconds(lambda: load(source)) for _ in range(repeat))
    model = load(source)
    parts["hash of the weights"] = seconds(lambda: model.fingerprint)
    return parts


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model instead of the embedded one")
    parser.add_argument("--repeat", type=int, default=5, help="calls of which the quickest is shown")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    parts = measure(chosen.model, chosen.repeat)
    if chosen.json:
        print(json.dumps(parts, indent=2))
        return
    for name, took in parts.items():
        print(f"{name:32}{took:8.3f} s")


if __name__ == "__main__":
    main()
