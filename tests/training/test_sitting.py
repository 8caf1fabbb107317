"""A run goes on with the configuration that it began with, and says so where it cannot."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from segue.errors import TrainingError
from segue.training import precision, sitting
from segue.training.recipes import codec, t2i, upscaler
from segue.training.recipes.codec import Config
from segue.training.sitting import changes, described, settled


@pytest.fixture(scope="module")
def config(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Of a run that is done."""
    blocks: dict[str, Any] = {"encoder_blocks": (0, 1, 1, 1), "decoder_blocks": (1, 1, 1, 1), "width": 8}
    times: dict[str, Any] = {"steps": 2, "batch": 2, "warmup": 1, "log_every": 1, "save_every": 2}
    config = Config(corpus=corpus, out=tmp_path_factory.mktemp("run"), validation_every=8, **blocks, **times)
    codec.main(config)
    return config


def rewritten(config: Config, out: Path, **said: Any) -> Config:
    """The run in another folder, where its checkpoint says these things of its configuration; None is nothing."""
    source = config.out / sitting.CHECKPOINT
    with safe_open(source, "pt") as file:
        facts = file.metadata()
    stored = {**json.loads(facts["config"]), **said}
    facts["config"] = json.dumps({name: value for name, value in stored.items() if value is not None})
    save_file(load_file(source), out / sitting.CHECKPOINT, facts)
    return dataclasses.replace(config, out=out)


@pytest.mark.parametrize(
    "changed",
    [{"seed": 5}, {"batch": 4}, {"perceptual_weight": 0.5}, {"validation_every": 4}, {"bf16": True}, {"ema": 0.5}],
)
def test_another_configuration_is_refused_by_name(changed: dict[str, Any], config: Config) -> None:
    config = dataclasses.replace(config, bf16=settled(config).bf16)
    if "bf16" in changed:
        changed = {"bf16": not config.bf16}
    ((name, value),) = changed.items()
    with pytest.raises(TrainingError, match=rf"does not fit this run \({name}: .* there, {value} here\)"):
        settled(dataclasses.replace(config, **changed))


def test_another_corpus_in_the_same_place_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"corpus_sha256: 123 there"):
        settled(rewritten(config, tmp_path, corpus_sha256="123"))


def test_paths_are_the_same_if_they_lead_to_the_same_place(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.corpus.parent)
    settled(rewritten(config, tmp_path, corpus=config.corpus.name))


def test_lists_of_paths_are_those_that_a_checkpoint_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON, a path is text."""
    monkeypatch.chdir(tmp_path)
    config = upscaler.Config(corpus=tmp_path, out=tmp_path, more=(tmp_path / "a", Path("b")))
    stored = json.loads(json.dumps(described(config), default=str))
    assert changes(stored, config) == {}
    assert changes({**stored, "more": ["a", str(tmp_path / "b")]}, config) == {}
    for more in ([], ["a"], ["b", "a"]):
        assert changes({**stored, "more": more}, config).keys() == {"more"}


def test_a_run_may_be_lengthened_and_its_log_says_so(config: Config, tmp_path: Path) -> None:
    longer = dataclasses.replace(rewritten(config, tmp_path), steps=3, lr=1e-4, log_every=3)
    codec.main(longer)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert {"steps": 3, "lr": 1e-4}.items() <= {
        k: v for line in lines if line["step"] == 2 for k, v in line.items()
    }.items()
    assert changes(described(longer), longer) == {}


def test_an_earlier_version_had_the_default_of_what_it_did_not_know(config: Config, tmp_path: Path) -> None:
    earlier = rewritten(config, tmp_path, latent_noise=None, corpus_sha256=None)
    settled(earlier)
    with pytest.raises(TrainingError, match=r"latent_noise: 0\.06 there, 0\.5 here"):
        settled(dataclasses.replace(earlier, latent_noise=0.5))


def test_the_precision_is_decided_once(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine goes on with what the first one found fast."""
    for fast in (True, False):
        begun = rewritten(config, tmp_path, bf16=fast)
        assert settled(begun).bf16 is fast

        def ask(device: str, fast: bool = fast) -> bool:
            return fast

        monkeypatch.setattr(sitting, "fast_bf16", ask)
        assert settled(dataclasses.replace(config, out=tmp_path / "new")).bf16 is fast


def test_half_precision_is_for_processors_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for avx, amx in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        assert precision.fast_bf16("cpu") is (avx or amx)
    assert not precision.fast_bf16("mps")


def test_other_captions_make_another_tokenizer(corpus: Path, tmp_path: Path) -> None:
    config = t2i.Config(corpus=corpus, out=tmp_path, vocabulary=560)
    loaded = t2i.Corpus.load(corpus)
    learned = t2i.read_tokenizer(loaded, config).get_vocab()
    assert t2i.read_tokenizer(loaded, config).get_vocab() == learned
    larger = t2i.read_tokenizer(loaded, dataclasses.replace(config, vocabulary=580))
    assert len(larger) > len(learned) == 560
    other = tmp_path / "other"
    other.mkdir()
    (other / "sources.json").write_text("{}", "utf-8")
    said = dataclasses.replace(loaded, captions=(("zebra " * 9, "zebu"),) * len(loaded))
    assert "zebra</w>" in t2i.read_tokenizer(said, dataclasses.replace(config, corpus=other)).get_vocab()
