"""Every script in examples/ runs, and writes what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from tiny import write_model

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of the embedded one's layout: what a script does is tested here, not what the pictures show."""
    return write_model(tmp_path_factory.mktemp("tiny"), prediction="v_prediction", length=24, vae="tiny")


def test_there_is_one_for_every_task() -> None:
    assert {"image", "transition", "tree", "own_operator", "stylize", "edit", "animate", "upscale"} <= {
        path.stem for path in EXAMPLES
    }


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    script: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGUE_MODEL", str(tiny))
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    written = re.findall(r"wrote (\S+\.\w+)", said)
    assert written, said
    assert all((tmp_path / name).stat().st_size > 0 for name in written)
    assert "False" not in said, said


def test_the_tree_of_the_readme_has_its_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = runpy.run_path(str(ROOT / "examples" / "tree.py"), run_name="__main__")["by_steps"]
    running = {
        step: sum(n.step <= step and (n.stop is None or n.stop > step) for n in tree.nodes) for step in range(12)
    }
    assert [running[step] for step in (0, 3, 6, 9)] == [2, 3, 7, 10]
    assert "10 of them run to the end" in capsys.readouterr().out
    assert (tmp_path / "tree.svg").read_text(encoding="utf-8").count("<circle") == 10
