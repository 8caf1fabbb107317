"""`segue doctor`: what this machine has, what is missing, what to do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from segue.cli.fields import verb
from segue.cli.machine import examine

MARKS = {"fine": "  ", "missing": "✗ ", "optional": "· "}


@dataclass(frozen=True)
class Checkup:
    """What to look at.

    Args:
        hub: also ask the model hub whether it answers.
        json: print a JSON list instead of text.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    hub: bool = False
    json: bool = False


@verb
def doctor(checkup: Checkup) -> int:
    """Say what this machine has, what is missing, and what to do; 1 if something is missing."""
    findings = list(examine(checkup.hub))
    missing = [finding for finding in findings if finding.state == "missing"]
    if checkup.json:
        print(json.dumps([asdict(finding) for finding in findings]))
        return 1 if missing else 0
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        advice = f"  → {finding.advice}" if finding.advice else ""
        print(f"{MARKS[finding.state]}{finding.name:{width}}  {finding.found}{advice}")
    print(f"{len(missing)} missing" if missing else "everything that Segue needs is here")
    return 1 if missing else 0
