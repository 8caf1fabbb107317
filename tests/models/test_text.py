# pyright: basic
"""Prompt weights, long prompts, and parity with the plain encoder."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from segue.errors import TaskError
from segue.models import text as texts
from segue.models.lora_rows import scaled
from segue.models.text import ClipText, parse_weights


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a red apple", [("a red apple", 1)]),
        ("a (red) apple", [("a ", 1), ("red", 1.1), (" apple", 1)]),
        ("a [red] apple", [("a ", 1), ("red", 1 / 1.1), (" apple", 1)]),
        ("a (red:1.3) apple", [("a ", 1), ("red", 1.3), (" apple", 1)]),
        ("a (red:.5)", [("a ", 1), ("red", 0.5)]),
        ("((red))", [("red", 1.1**2)]),
        ("(a (red:2) apple:0.5)", [("a ", 0.5), ("red", 1), (" apple", 0.5)]),
        ("(a:1.2)(b:1.2)", [("ab", 1.2)]),
        (r"a \(red\) apple", [("a (red) apple", 1)]),
        (r"(a \(b\):1.5)", [("a (b)", 1.5)]),
        (r"back\\slash", [("back\\slash", 1)]),
        ("a (red apple", [("a (red apple", 1)]),
        ("a red) apple", [("a red) apple", 1)]),
        ("([a)", [("[a", 1.1)]),
        ("[red:2]", [("red:2", 1 / 1.1)]),
        ("at 10:30", [("at 10:30", 1)]),
        ("", []),
        ("()", []),
    ],
)
def test_the_grammar_of_weights(prompt, pieces):
    got = parse_weights(prompt)
    assert [text for text, _ in got] == [text for text, _ in pieces]
    assert [weight for _, weight in got] == pytest.approx([weight for _, weight in pieces])


def test_deep_nesting_and_absurd_weights():
    assert parse_weights("(" * 20 + "a" + ")" * 20)[0][1] == pytest.approx(1.1**20)
    assert parse_weights("(" * 5000 + "a") == [("(" * 5000 + "a", 1)]
    for absurd in ("(a:5000)", "(a:-1001)", "(" * 5000 + "a" + ")" * 5000):
        with pytest.raises(TaskError, match="between -1000 and 1000"):
            parse_weights(absurd)


@pytest.mark.parametrize("name", ["model", "short_model"])
@pytest.mark.parametrize("prompt", ["a red apple", "", "Red  CAT, it's (1"])
def test_without_weights_it_is_the_plain_encoder_bit_by_bit(name, prompt, request):
    text = request.getfixturevalue(name).text
    ids = text.tokenizer(
        [prompt], padding="max_length", max_length=text.context, truncation=True, return_tensors="pt"
    ).input_ids
    assert torch.equal(text([prompt]).text, text.encoder(ids)[0])
    assert text([prompt]).text.shape == (1, text.context, 32)


def test_padding_is_the_tokenizers_own(model):
    tokenizer = type(model.text.tokenizer).from_pretrained(model.text.tokenizer.name_or_path, pad_token="!")
    text = replace(model.text, tokenizer=tokenizer)
    ids = tokenizer(["a cat"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert (ids[0, -1] == tokenizer.convert_tokens_to_ids("!")).all()
    assert torch.equal(text(["a cat"]).text, text.encoder(ids)[0])


def test_weights_move_the_embedding_and_keep_its_magnitude(model):
    plain, heavier, light = (model.text([p]).text for p in ("a red apple", "a (red:1.4) apple", "a (red:0.6) apple"))
    for changed in (heavier, light):
        assert not torch.equal(changed, plain)
        assert torch.allclose(changed.abs().mean(), plain.abs().mean(), rtol=1e-5)
    red = 2  # begin, a, red
    assert heavier[0, red].norm() > plain[0, red].norm() > light[0, red].norm()
    assert torch.equal(model.text(["a (red:1.0) apple"]).text, plain)


def test_prompts_do_not_influence_each_other(model):
    prompts = ["a red apple", "a cat", "a red apple"]
    together = model.text(prompts).text
    assert torch.equal(together, torch.cat([model.text([p]).text for p in prompts]))


def test_long_prompts_come_in_chunks_that_all_prompts_share(short_model):
    text = short_model.text
    words = ["cat", "red", "apple"] * 10  # 30 words of one token; a chunk holds 22
    long = " ".join(words)
    both = text([long, "a cat"]).text
    assert both.shape == (2, 48, 32)
    assert torch.equal(both[0, :24], text([" ".join(words[:22])]).text[0])
    assert torch.equal(both[0, 24:], text([" ".join(words[22:])]).text[0])
    assert torch.equal(both[1, :24], text(["a cat"]).text[0])
    assert torch.equal(both[1, 24:], text([""]).text[0])


def test_tokens_lie_where_what_is_made_of_them_does(short_model):
    """Chunk by chunk, whatever the weights; what fills up is told as such."""
    text, prompts = short_model.text, ["(red:1.4) apple on the table with a green cat and a blue dog", "a cat"]
    tokens = text.tokens(prompts)
    assert tokens.shape == text(prompts).text.shape
    assert torch.equal(tokens, text.tokens([prompt.replace("(red:1.4)", "red") for prompt in prompts]))
    table, words = text.encoder.get_input_embeddings().weight, text.tokenizer("a cat", add_special_tokens=False)
    assert torch.equal(tokens[1, 1 : 1 + len(words.input_ids)], table[words.input_ids].float())
    assert torch.equal(tokens[:, 0], table[[text.tokenizer.bos_token_id] * 2].float())
    with pytest.raises(TaskError, match="at least one prompt"):
        text.tokens([])


def test_chunks_are_cut_between_words(short_model):
    text = short_model.text
    long = " ".join(["cat"] * 20 + ["xyz"])  # 20 tokens and a word of three: it does not fit into 22
    assert torch.equal(text([long]).text[0, 24:], text(["xyz"]).text[0])
    endless = "x" * 50  # one word longer than a chunk has to be cut somewhere
    assert text([endless]).text.shape[1] == 72


def test_exactly_full_is_still_one_chunk(short_model):
    assert short_model.text([" ".join(["cat"] * 22)]).text.shape[1] == 24
    assert short_model.text([" ".join(["cat"] * 23)]).text.shape[1] == 48


def test_clip_skip_leaves_out_the_last_layers(model):
    ids = torch.tensor([[model.text.tokenizer.bos_token_id] + [model.text.tokenizer.eos_token_id] * 76])
    states = model.text.encoder(ids, output_hidden_states=True).hidden_states
    skipped = replace(model.text, clip_skip=1)([""]).text
    assert torch.allclose(skipped, model.text.encoder.final_layer_norm(states[-2]), atol=1e-6)
    with pytest.raises(TaskError, match="between 0 and 2"):
        replace(model.text, clip_skip=3)


def test_no_prompts_are_an_error(model):
    with pytest.raises(TaskError, match="at least one prompt"):
        model.text([])


def asked(model) -> list[int]:
    """Fills with a number for each time that the encoder is asked."""
    calls: list[int] = []
    forward = model.text.encoder.forward

    def counted(*args, **kwargs):
        calls.append(1)
        return forward(*args, **kwargs)

    model.text.encoder.forward = counted
    return calls


@pytest.fixture
def fresh(model):
    """The same model with an encoder of its own, which remembers nothing yet."""
    return replace(model, text=replace(model.text, encoder=deepcopy(model.text.encoder)))


def test_a_text_is_encoded_once_whatever_its_weights(fresh):
    calls = asked(fresh)
    first = fresh.text(["a red apple", "a cat", "a red apple", ""]).text
    assert len(calls) == 3
    again = fresh.text(["a red apple", "a cat", "a red apple", ""]).text
    weighted = fresh.text(["(a red apple:1.3)"]).text
    assert len(calls) == 3
    assert torch.equal(again, first) and torch.equal(first[0], first[2])
    other = ClipText(fresh.text.encoder, fresh.text.tokenizer)
    assert torch.equal(weighted, other(["(a red apple:1.3)"]).text)
    assert len(calls) == 4, "another encoder object remembers nothing of it"


def test_an_encoder_that_was_changed_is_asked_anew(fresh):
    calls = asked(fresh)
    before = fresh.text(["a cat"]).text
    weight = fresh.text.encoder.get_input_embeddings().weight
    with torch.no_grad():
        weight.mul_(1.5)
    changed = fresh.text(["a cat"]).text
    assert len(calls) == 2 and not torch.equal(before, changed)
    weight.data = weight.data / 1.5
    assert torch.allclose(fresh.text(["a cat"]).text, before, atol=1e-5)
    assert len(calls) == 3


def test_an_encoder_that_learns_or_is_told_the_scales_of_loras_is_always_asked(fresh):
    calls = asked(fresh)
    with scaled(torch.ones(1, 1)):
        fresh.text(["a cat"])
        fresh.text(["a cat"])
    assert len(calls) == 2
    fresh.text.encoder.requires_grad_(True)
    fresh.text(["a cat"])
    fresh.text(["a cat"])
    assert len(calls) == 4


def test_what_was_not_asked_for_lately_is_forgotten(fresh, monkeypatch):
    monkeypatch.setattr(texts, "REMEMBERED", 2)
    calls = asked(fresh)
    for prompt in ("one", "two", "one", "three", "one", "two"):
        fresh.text([prompt])
    assert len(calls) == 4
