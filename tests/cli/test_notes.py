"""A prompt with words that the model does not know: one line, before the work, and in what is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.conftest import SHORT, Run
from segue.tasks.image import Image
from segue.tasks.sampling import Sampling
from segue.zoo import cards, load

CARD = 'name = "fruit"\nsummary = "x"\nlicence = "MIT"\nvocabulary = ["apple", "cat"]\n[words]\ncolours = ["red"]\n'
LINE = 'the model fruit does not know "violin"; `segue models fruit` lists what it knows, --model takes a larger model'


@pytest.fixture
def fruit(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An embedded model that knows two things."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "weights" / "fruit"))
    (folder / "card.toml").write_text(CARD, encoding="utf-8")
    monkeypatch.setattr(cards, "WEIGHTS", tmp_path / "weights")
    return folder


IMAGE = ["--model", "fruit", "--steps", "1", "-o", "x.png"]


def test_one_line_before_the_work(run: Run, fruit: Path, tmp_path: Path) -> None:
    answer = run("image", "a red violin", *IMAGE)
    assert answer.code == 0
    lines = answer.err.splitlines()
    assert lines.count(f"segue: {LINE}") == 1
    assert lines.index(f"segue: {LINE}") < lines.index("segue: denoising")
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["notes"] == [LINE]


def test_nothing_is_said_of_what_is_known(run: Run, fruit: Path, tmp_path: Path) -> None:
    answer = run("image", "a red apple", *IMAGE, "--negative", "a violin")
    assert "know" not in answer.err
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["notes"] == []


def test_once_for_all_prompts(run: Run, fruit: Path) -> None:
    film = ["transition", "a violin", "a cat", "the violin", "--model", "fruit", "--steps", "3", "--max-branches", "1"]
    answer = run(*film, *SHORT, "-o", "x.webm", "--json")
    assert answer.json["notes"] == [LINE]
    assert answer.err.count("violin") == 1


def test_quiet_is_quiet(run: Run, fruit: Path, tmp_path: Path) -> None:
    answer = run("image", "a violin", *IMAGE, "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert run("image", "a violin", *IMAGE, "--quiet", "--json").json["notes"] == [LINE]


def test_a_model_without_vocabulary_says_nothing(run: Run, checkpoint: Path) -> None:
    answer = run("image", "a violin", "--model", checkpoint, "--steps", "1", "--json")
    assert answer.json["notes"] == []
    assert "violin" not in answer.err.replace("a-violin", "")


def test_the_library_notes_and_prints_nothing(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, model = Image("a violin", sampling=Sampling(steps=1)), load("fruit")
    assert task.notes(model) == (LINE,)
    clip = task.run(model)
    assert clip.provenance is not None
    assert clip.provenance.record["notes"] == [LINE]
    assert capsys.readouterr() == ("", "")


def test_a_rerun_from_another_folder_leaves_the_same_record(
    run: Run, fruit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run("image", "two apples", "--model", "weights/fruit", "--steps", "1", "-o", "x.png")
    assert 'not "apples" (ask for "apple")' in made.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("rerun", "../x.json", "-o", "x.png").code == 0
    assert (tmp_path / "elsewhere" / "x.json").read_bytes() == (tmp_path / "x.json").read_bytes()
