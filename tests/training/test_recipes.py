"""Every recipe learns, can be cut at any moment, and leaves a folder that stock diffusers reads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from segue.diffusion.schedule import Schedule
from segue.errors import TrainingError
from segue.models.loading import load_model
from segue.training import run
from segue.training.data import Corpus, step_generator, step_rng
from segue.training.journal import Journal
from segue.training.rates import trapezoid
from segue.training.recipes import codec, t2i
from segue.types import Conditioning

STEPS = 6


@pytest.fixture(scope="module")
def codec_config(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> codec.Config:
    return codec.Config(
        corpus=corpus,
        out=tmp_path_factory.mktemp("codec"),
        width=8,
        encoder_blocks=(0, 1, 1, 1),
        decoder_blocks=(1, 1, 1, 1),
        steps=STEPS,
        batch=4,
        warmup=1,
        decay=2,
        validation_every=8,
        log_every=1,
        save_every=2,
    )


@pytest.fixture(scope="module")
def vae(codec_config: codec.Config) -> Path:
    return codec.main(codec_config)


@pytest.fixture(scope="module")
def t2i_config(corpus: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> t2i.Config:
    return t2i.Config(
        corpus=corpus,
        codec=vae,
        out=tmp_path_factory.mktemp("t2i"),
        widths=(32, 32),
        text_width=32,
        text_layers=1,
        vocabulary=600,
        steps=STEPS,
        batch=4,
        warmup=1,
        decay=2,
        log_every=1,
        save_every=2,
        sheet_every=STEPS,
        sheet_steps=2,
    )


@pytest.fixture(scope="module")
def model(t2i_config: t2i.Config) -> Path:
    return t2i.main(t2i_config)


class CutError(Exception):
    """Stands for the kill that comes at the worst moment."""


def cut_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Journal.step

    def until(self: Journal, now: int, **values: float) -> None:
        plain(self, now, **values)
        if now == step:
            raise CutError

    monkeypatch.setattr(Journal, "step", until)


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.parametrize("name", ["codec", "t2i"])
def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"codec": codec, "t2i": t2i}[name]
    whole = request.getfixturevalue(f"{name}_config")
    request.getfixturevalue({"codec": "vae", "t2i": "model"}[name])
    config = dataclasses.replace(whole, out=tmp_path)
    with monkeypatch.context() as patch:
        cut_at(5, patch)  # one step after the last checkpoint
        with pytest.raises(CutError):
            recipe.main(config)
    recipe.main(config)
    expected, found = (load_file(c.out / "checkpoint.safetensors") for c in (whole, config))
    assert expected.keys() == found.keys()
    assert [key for key in expected if not expected[key].equal(found[key])] == []
    assert losses(whole.out) == losses(tmp_path)


def test_the_codec_learns(codec_config: codec.Config, tmp_path: Path) -> None:
    config = dataclasses.replace(codec_config, out=tmp_path, steps=40, warmup=5, lr=4e-3, log_every=10, save_every=40)
    codec.main(config)
    curve = losses(tmp_path)
    assert curve[40] < 0.8 * curve[10]


def test_decoder_only_keeps_every_latent(vae: Path, codec_config: codec.Config, tmp_path: Path) -> None:
    config = dataclasses.replace(codec_config, out=tmp_path, start=vae, decoder_only=True)
    tuned = codec.main(config)
    before, after = (load_file(folder / "diffusion_pytorch_model.safetensors") for folder in (vae, tuned))
    same = {key for key in before if before[key].equal(after[key])}
    assert {key for key in before if key.startswith("encoder.")} <= same
    assert {key for key in before if key.startswith("decoder.")} - same
    settings = [json.loads((folder / "config.json").read_text("utf-8"))["scaling_factor"] for folder in (vae, tuned)]
    assert settings[0] == settings[1]


def test_captions_beyond_the_text_encoder_are_cut(t2i_config: t2i.Config, tmp_path: Path) -> None:
    folder = t2i.main(dataclasses.replace(t2i_config, out=tmp_path, positions=4, steps=1))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert tokenizer.model_max_length == 4 < len(tokenizer("a red apple on a blue background")["input_ids"])


def test_a_run_may_begin_with_an_exported_model_of_other_words(
    model: Path, t2i_config: t2i.Config, tmp_path: Path
) -> None:
    config = dataclasses.replace(t2i_config, out=tmp_path, start=model, vocabulary=560)
    tokenizer = t2i.read_tokenizer(Corpus.load(config.corpus), config)
    old = CLIPTokenizer.from_pretrained(model / "tokenizer").get_vocab()
    assert old != tokenizer.get_vocab(), "the tokens have other numbers"
    parts: Any = t2i.build(config, len(tokenizer), 4)
    fresh = parts["text"].get_input_embeddings().weight.detach().clone()
    t2i.begin_from(parts, tokenizer, model)
    unet = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(value.half().equal(unet[name]) for name, value in parts["unet"].state_dict().items())
    text = load_file(model / "text_encoder" / "model.safetensors")
    (rows,) = (value for name, value in text.items() if name.endswith("token_embedding.weight"))
    begun = parts["text"].get_input_embeddings().weight
    for token, number in tokenizer.get_vocab().items():
        wanted = rows[old[token]] if token in old else fresh[number].half()
        assert begun[number].half().equal(wanted), token


def test_the_exported_model_runs_in_stock_diffusers(model: Path) -> None:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    picture = pipeline("a red apple", num_inference_steps=2, output_type="np", generator=generator)
    assert picture.images.shape == (1, 32, 32, 3)
    dtypes = {value.dtype for value in load_file(model / "unet" / "diffusion_pytorch_model.safetensors").values()}
    assert dtypes == {torch.float16}


def test_the_tokenizer_survives_its_own_files(model: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    ids = tokenizer(["A red apple", "a red  apple"], padding="max_length")["input_ids"]
    assert ids[0] == ids[1] and len(ids[0]) == 24
    assert ids[0][0] == 0 and ids[0][4:] == [1] * 20, "begin, three words, end, padding"
    strange = tokenizer("Übermut 7 ✂ naïve!")["input_ids"]
    assert strange.count(1) == 1, "bytes stand in for letters that no caption has"


def test_the_loss_equals_that_of_the_network_alone(model: Path, t2i_config: t2i.Config) -> None:
    """Through Denoiser and Point, or as papers write it: mse(unet(x_t, t), alpha eps - sigma x0)."""
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    unet = pipeline.unet.float()  # the text encoder stays as it is; random numbers stand in for it
    x0, text = torch.randn(4, 4, 4, 4, generator=step_generator(0, 0)), torch.randn(4, 24, 32)
    denoiser = t2i.NetworkDenoiser(t2i.UNetNetwork(unet), "v_prediction")
    with torch.no_grad():
        at, eps = t2i.noise(t2i_config, 7, x0.shape[1:])
        loss = t2i.step_loss(denoiser, x0, Conditioning(text), at, eps, t2i_config)
        generator = step_generator(t2i_config.seed, 7)
        times = ((torch.arange(4) + torch.rand(4, generator=generator)) / 4 * 1000).long()
        eps = torch.randn(x0.shape, generator=generator)
        pipeline.scheduler.alphas_cumprod = pipeline.scheduler.alphas_cumprod.float()
        x, v = (f(x0, eps, times) for f in (pipeline.scheduler.add_noise, pipeline.scheduler.get_velocity))
        expected = torch.nn.functional.mse_loss(unet(x, times, text).sample, v)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def times(step: int, **changes: Any) -> list[float]:
    config = t2i.Config(batch=10, steps=100, **changes)
    return t2i.noise(config, step, (1, 1, 1))[0].time.tolist()


def test_training_times_are_spread_over_the_whole_schedule() -> None:
    seen = [time for step in range(30) for time in times(step)]
    assert sorted(int(time // 100) for time in seen) == sorted(list(range(10)) * 30)


def test_a_bias_to_noise_relaxes_over_its_share_of_the_run() -> None:
    """u ** .5 has the mean 2/3 and no row below 0; an even draw has 1/2."""
    means = [sum(times(step, noise_power=0.5, noise_share=0.5)) / 10_000 for step in range(100)]
    assert means[0] == pytest.approx(2 / 3, abs=0.03)
    assert means[25] == pytest.approx(1 / 1.75, abs=0.03)
    assert [times(step, noise_power=0.5) for step in range(50, 100)] == [times(step) for step in range(50, 100)]
    assert times(0, noise_power=0.5, noise_share=0.0) == times(0)


def test_flow_is_trained_on_the_levels_that_it_samples() -> None:
    levels = t2i.trained_levels("flow_prediction")
    assert len(levels) == 1000
    torch.testing.assert_close(levels.sigma, torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(levels.alpha + levels.sigma, torch.ones(1000, dtype=torch.float64))
    visited = Schedule.from_config(t2i.FLOW, 20).now.time
    assert visited.tolist() == levels.time.flip(0)[::50].tolist()


def test_a_flow_model_is_read_like_any_other(t2i_config: t2i.Config, tmp_path: Path) -> None:
    """And learns: the loss falls. Stock pipelines say that its scheduler lacks what they need."""
    more = {"prediction": "flow_prediction", "min_snr": 5.0, "noise_power": 0.7}
    config = dataclasses.replace(
        t2i_config, out=tmp_path, steps=24, lr=4e-3, log_every=6, sheet_every=100, save_every=24, **more
    )
    folder = t2i.main(config)
    curve = losses(tmp_path)
    assert curve[24] < 0.9 * curve[6]
    model = load_model(folder, device="cpu")
    assert model.denoiser.prediction == "flow_prediction" and model.defaults.solver == "euler"
    stock: Any = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    with pytest.raises(AttributeError, match="init_noise_sigma"):
        stock("a red apple", num_inference_steps=2)


def test_a_step_draws_what_its_number_says(corpus: Path, t2i_config: t2i.Config) -> None:
    loaded = Corpus.load(corpus)
    first, again, other = (t2i.draw(loaded, t2i_config, step) for step in (3, 3, 4))
    assert first[0].equal(again[0]) and first[1] == again[1]
    assert not first[0].equal(other[0]) or first[1] != other[1]
    for row, caption in zip(*first, strict=True):
        assert caption == "" or caption in loaded.captions[int(row)]
    assert step_rng(1, 2).random() != step_rng(2, 1).random()


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [trapezoid(step, 100, 10, 20) for step in range(100)]
    assert rates[0] == 0.1 and rates[9:80] == [1.0] * 71
    assert rates[-1] == pytest.approx(0.05) and rates == [*sorted(rates[:80]), *sorted(rates[80:], reverse=True)]


@pytest.mark.parametrize("name", run.names())
def test_every_shipped_recipe_parses(name: str) -> None:
    config = run.read_config(name, overrides=["seed=3", "out=somewhere/else"])
    assert config.seed == 3 and config.out == Path("somewhere/else")


@pytest.mark.parametrize(
    ("override", "said"), [("stepz=1", "stepz"), ("steps=many", "steps"), ("steps", "field=value")]
)
def test_a_wrong_override_is_named(override: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        run.read_config("codec", overrides=[override])


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(TrainingError, match=r"codec, control, corpus, .*t2i"):
        run.run("nothing")


def test_a_checkpoint_of_another_run_is_refused(codec_config: codec.Config, vae: Path) -> None:
    with pytest.raises(TrainingError, match="does not fit"):
        codec.main(dataclasses.replace(codec_config, width=16, steps=STEPS + 1))


def test_a_missing_corpus_is_named(tmp_path: Path, codec_config: codec.Config) -> None:
    with pytest.raises(TrainingError, match="no corpus"):
        codec.main(dataclasses.replace(codec_config, corpus=tmp_path, out=tmp_path))
