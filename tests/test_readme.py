"""What the README shows is true: every block is run as it stands, and every link leads somewhere.

Blocks run in order, in one folder, with the embedded model, or, where one makes a film and names no model, with its
form for few steps; their commands are forked from one process that has imported what they need. Lines that begin with
`make` are checked to name targets; people and CI run them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from forked import command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
STRIP = "docs/transition.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    commands = command(tmp_path_factory.mktemp("commands"))
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


@cache
def names() -> frozenset[str]:
    """All words of the source."""
    return frozenset(
        word for path in (ROOT / "src").rglob("*.py") for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
    )


def test_blocks_were_found() -> None:
    assert {kind for kind, _ in BLOCKS} == {"bash", "python"}
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda number: f"{number}-{BLOCKS[number][0]}")
def test_a_block_runs(number: int, folder: Path, environment: dict[str, str]) -> None:
    kind, text = BLOCKS[number]
    lines = [line for line in text.splitlines() if not line.startswith("make ")]
    for target in re.findall(r"^make (\w+)", text, flags=re.MULTILINE):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)
    quick = {"SEGUE_MODEL": "emoji-fast"} if "transition" in text.lower() else {}
    command = [sys.executable, "-W", "error", "-c"] if kind == "python" else ["bash", "-euo", "pipefail", "-c"]
    done = subprocess.run(
        [*command, "\n".join(lines)], cwd=folder, env=environment | quick, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in re.findall(r"(?:-o |--tree |save\(\")([\w.-]+\.\w+)", text):
        assert (folder / name).stat().st_size > 0, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_that_are_mentioned_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name in re.findall(r"`((?:src|tests|examples|docs|benchmarks)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name} mentions {name}"
    for name in re.findall(r"`((?:media|motion|diffusion|temporal|models|tasks|zoo|training|cli)/\w+)`", text):
        there = ROOT / "src" / "segue" / name
        assert there.is_dir() or there.with_suffix(".py").exists(), f"{page.name} mentions {name}"
    for name in re.findall(r"`(\w+)(?:\(\))?`", text):
        if re.fullmatch(r"[A-Z][a-z]+[A-Z]\w+|[a-z]+_\w+", name):
            assert name in names(), f"{page.name} mentions {name}"


def test_the_picture_is_there() -> None:
    assert (ROOT / STRIP).stat().st_size > 10_000
