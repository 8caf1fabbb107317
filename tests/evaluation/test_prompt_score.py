"""Scores of prompts on toy scorers: what each number counts, what nouns are found in prompts, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segue.errors import CheckpointError, ModelNotFoundError, TaskError
from segue.evaluation import judge_file
from segue.evaluation.judge_file import read_judge, write_judge
from segue.evaluation.looks import colourfulness, looks
from segue.evaluation.prompt_score import CorpusScorer, noun_in, prompt_score
from segue.evaluation.recognition import Judge
from segue.media import TensorFrames

NOUNS = ("apple", "cat face", "dog face", "hot pepper", "red pepper", "star", "starfish")


@dataclass(frozen=True)
class Redness:
    """A picture is its mean colour; "red" and "blue" are prompts."""

    name: str = "mean colours"
    title: str = "redness"
    says: str = "how much of a colour there is"

    def features(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))

    def scores(self, features: Tensor, prompt: str) -> Tensor:
        return features[:, ("red", "green", "blue").index(prompt)]


def painted(*colours: tuple[float, float, float]) -> TensorFrames:
    return TensorFrames.rounded(torch.tensor(colours, dtype=torch.float32).view(-1, 3, 1, 1).expand(-1, 3, 4, 6))


def test_scores_are_means_and_the_worst_frame_is_named() -> None:
    film = painted((1, 0, 0), (0.4, 0, 0.6), (0, 1, 0), (0.2, 0, 0.2))
    found = prompt_score(film, "red", Redness(), source_prompt="blue")
    assert found.frames == pytest.approx((1, 0.4, 0, 0.2), abs=2e-3)
    assert found.score == pytest.approx(0.4, abs=2e-3)
    assert (found.worst, found.worst_at) == (0, 2)
    assert found.accuracy == 0.75  # as red as blue counts, as FateZero has it
    cosines = [0.4 / (0.16 + 0.36) ** 0.5, 0, 0]
    assert found.consistency == pytest.approx(sum(cosines) / 3, abs=2e-3)
    names = [measure.name for measure in found.measures()]
    assert names == ["redness", "consistency", "edited frames"]


def test_one_frame_has_no_consistency_and_no_source_no_share() -> None:
    found = prompt_score(painted((1, 0, 0)), "red", Redness())
    assert (found.consistency, found.accuracy, found.score) == (None, None, 1)
    with pytest.raises(TaskError, match="must say something"):
        prompt_score(painted((1, 0, 0)), "  ", Redness())


@pytest.mark.parametrize(
    ("prompt", "noun"),
    [
        ("a red apple", "apple"),
        ("line art of an Apple, on blue", "apple"),
        ("a cat", "cat face"),
        ("a red hot pepper", "hot pepper"),
        ("a starfish", "starfish"),
        ("a star", "star"),
    ],
)
def test_the_noun_of_a_prompt(prompt: str, noun: str) -> None:
    assert noun_in(prompt, NOUNS) == noun


def test_prompts_without_a_noun_are_refused_with_what_is_near() -> None:
    with pytest.raises(TaskError, match="did you mean cat face or dog face"):
        noun_in("a face", NOUNS)
    with pytest.raises(TaskError, match="did you mean apple"):
        noun_in("an appel", NOUNS)
    with pytest.raises(TaskError, match="names none of the 7 things"):
        noun_in("a on", NOUNS)


class Mean:
    name = "efficientnet-lite0 stage statistics (32 px)"

    def __call__(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))


class Loaded:
    def load(self, *, side: int) -> Mean:
        assert side == 32
        return Mean()


def judge() -> Judge:
    """Red is an apple, green a frog, blue the sea."""
    head = torch.cat([8 * torch.eye(3), torch.zeros(3, 1)], 1)
    mean, scale = torch.full((3,), 0.25), torch.full((3,), 0.5)
    return Judge(Mean(), ("apple", "frog", "sea"), ("flat",), mean, scale, head, torch.zeros(1, 4))


def test_the_corpus_classifier_tells_probabilities() -> None:
    scorer = CorpusScorer(judge())
    found = prompt_score(painted((1, 0, 0), (0, 0, 1)), "a frog", scorer, source_prompt="the sea")
    logits = 8 * (torch.tensor([[1.0, 0, 0], [0, 0, 1]]) - 0.25) / 0.5
    assert found.frames == pytest.approx(logits.softmax(1)[:, 1].tolist())
    assert found.accuracy == 0.5
    assert found.consistency is not None and found.consistency < 0.1  # standardised: unlike colours point elsewhere
    assert "CLIP" not in found.title + found.by + found.says
    with pytest.raises(TaskError, match="names none of the 3 things"):
        prompt_score(painted((1, 0, 0)), "a boat", scorer)


def test_a_judge_is_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_file, "EfficientNetFeatures", Loaded())
    path = tmp_path / "judge.safetensors"
    write_judge(judge(), path, {"corpus": "x"})
    found, pictures = read_judge(path), torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert found(pictures) == judge()(pictures)
    assert judge_file.read_about(path)["corpus"] == "x"
    assert [each.name for each in tmp_path.iterdir()] == ["judge.safetensors"]


def test_other_files_are_no_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        read_judge(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="holds no judge"):
        read_judge(path)
    save_file({"mean": torch.zeros(3)}, path, {"about": "{}"})
    with pytest.raises(CheckpointError, match="expected mean, scale"):
        read_judge(path)
    heads = {"mean": (3,), "scale": (3,), "noun_head": (2, 4), "style_head": (1, 4)}
    monkeypatch.setattr(judge_file, "EfficientNetFeatures", Loaded())
    for features, said in (("others", "there are none of these"), (Mean.name, "is damaged: 1 nouns")):
        about = f'{{"features": "{features}", "nouns": ["a"], "styles": ["b"]}}'
        save_file({name: torch.zeros(shape) for name, shape in heads.items()}, path, {"about": about})
        with pytest.raises(CheckpointError, match=said):
            read_judge(path)


def test_colourfulness_is_the_published_formula() -> None:
    assert colourfulness(torch.rand(2, 1, 5, 5).expand(-1, 3, -1, -1)).tolist() == pytest.approx([0, 0])
    half = torch.zeros(1, 3, 4, 4)
    half[:, 0, :, :2] = 1  # red beside black: rg is 255 and 0, yb 127.5 and 0
    expected = (127.5**2 + 63.75**2) ** 0.5 + 0.3 * (127.5**2 + 63.75**2) ** 0.5
    assert float(colourfulness(half)) == pytest.approx(expected)


def test_looks_never_speak_of_beauty_without_a_head() -> None:
    film = painted((1, 0, 0), (0, 1, 0))
    plain = looks(film, painted((1, 1, 1), (0, 0, 0)))
    assert (plain.source, plain.aesthetic) == (0, None)
    assert [measure.better for measure in plain.measures()] == ["neither"]
    judged = looks(film, aesthetic=("sums", lambda features: features.sum(1)), features=torch.ones(2, 3))
    assert (judged.aesthetic, judged.head) == (3, "sums")
