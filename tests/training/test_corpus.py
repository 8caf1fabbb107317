"""The corpus says the truth about its pictures, keeps its secrets, and is the same whenever it is built."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.errors import TrainingError
from segue.training.captions import COLOUR_WORDS
from segue.training.corpus import CONCEPTS, ConceptList, CorpusConfig, build
from segue.training.pictures import GROUNDS, HUES, composite, decode, defringe, dominant_hue, ground, recolour, to_hsv
from segue.training.sources import read_emoji, read_members, tarball

from .conftest import Sources


def manifest(corpus: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (corpus / "manifest.jsonl").read_text("utf-8").splitlines()]


def test_every_picture_stands_on_the_ground_its_captions_name(corpus: Path) -> None:
    pictures = np.load(corpus / "pictures.npy")
    entries = manifest(corpus)
    assert len(entries) == len(pictures)
    assert {entry["background"] for entry in entries} == set(GROUNDS)
    for entry, picture in zip(entries, pictures, strict=True):
        corner = np.array(GROUNDS[entry["background"]])
        assert np.abs(picture[0, 0].astype(int) - corner).max() < 30
        for caption in entry["captions"]:
            others = [word for word in GROUNDS if f" {word} background" in caption and word not in entry["background"]]
            assert not others, caption
            assert entry["background"] == "white" or f"{entry['background']} background" in caption


def test_recoloured_pictures_have_the_hue_their_captions_say(corpus: Path) -> None:
    pictures = np.load(corpus / "pictures.npy").astype(np.float32) / 255
    own = {"🍎": "red", "🍏": "green", "🐘": "gray", "⭐": "yellow"}
    seen = 0
    for entry, picture in zip(manifest(corpus), pictures, strict=True):
        if entry["colour"] == own[entry["concept"]] or entry["placement"]["scale"] != 0.9:
            continue
        hue, _, _ = to_hsv(picture[12:20, 12:20])
        distance = np.abs((np.median(hue) - HUES[entry["colour"]][0] + 180) % 360 - 180)
        assert distance < 15, entry
        for caption in entry["captions"]:
            said = set(caption.split(",")[0].split(" on ")[0].split()) & COLOUR_WORDS
            assert said == {entry["colour"]}, caption
        seen += 1
    assert seen > 20


def test_held_out_pairs_and_collisions_are_never_shown(corpus: Path) -> None:
    shown = {(entry["concept"], entry["colour"]) for entry in manifest(corpus)}
    assert ("🐘", "blue") in shown and ("⭐", "red") in shown
    assert ("🐘", "pink") not in shown and ("⭐", "blue") not in shown
    assert ("🍏", "green") in shown and ("🍎", "green") not in shown, "two pictures under one caption"
    captions = [caption for entry in manifest(corpus) for caption in entry["captions"]]
    assert not [caption for caption in captions if "pink elephant" in caption or "blue star" in caption]


def test_a_bare_noun_means_one_concept(corpus: Path) -> None:
    bare = {e["concept"] for e in manifest(corpus) if e["background"] == "white" and "an apple" in e["captions"]}
    assert bare == {"🍎"}


def test_weights_follow_the_recipe(corpus: Path) -> None:
    config = CorpusConfig()
    stars = [entry for entry in manifest(corpus) if entry["concept"] == "⭐"]
    moved = sum(entry["weight"] for entry in stars if entry["placement"]["scale"] != 0.9)
    assert sum(entry["weight"] for entry in stars) == pytest.approx(1.0)
    assert moved == pytest.approx(config.weight_moved)


def test_objects_stay_whole_and_unmirrored_where_asked(corpus: Path) -> None:
    for entry in manifest(corpus):
        placement = entry["placement"]
        assert max(abs(placement["dx"]), abs(placement["dy"])) + placement["scale"] / 2 <= 0.5 + 1e-3
        assert not (placement["flip"] and entry["concept"] == "⭐")


def test_building_again_gives_the_same_bytes(corpus: Path, sources: Sources, tmp_path: Path) -> None:
    build(tmp_path, sources.folder, CorpusConfig(size=32, moved=3), sources.concepts, sources.packages)
    for name in ("pictures.npy", "manifest.jsonl", "sources.json"):
        assert (tmp_path / name).read_bytes() == (corpus / name).read_bytes()
    recorded = json.loads((corpus / "sources.json").read_text("utf-8"))
    assert recorded["pictures_sha256"] == hashlib.sha256((corpus / "pictures.npy").read_bytes()).hexdigest()
    assert [package["sha512"] for package in recorded["packages"]] == [p.sha512 for p in sources.packages]


def test_defringing_removes_the_pale_outline(sources: Sources) -> None:
    (apple,) = read_emoji(["🍎"], sources.folder, sources.packages)
    clean = composite(decode(apple.picture), ground("black", 64))
    halo = composite(np.asarray(_raw(apple.picture), np.float32) / 255, ground("black", 64))
    assert halo.min(-1).max() > 0.3, "the test picture has a fringe"
    assert clean.min(-1).max() < 0.2
    opaque = np.ones((8, 8, 4), np.float32) * 0.5
    opaque[..., 3] = 1
    np.testing.assert_array_equal(defringe(opaque), opaque)


def _raw(data: bytes) -> Any:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGBA")


@pytest.mark.parametrize("word", list(HUES))
def test_recolouring_turns_the_dominant_hue_and_keeps_the_shape(sources: Sources, word: str) -> None:
    (apple,) = read_emoji(["🍎"], sources.folder, sources.packages)
    before = decode(apple.picture)
    after = recolour(before, word)
    hue, share = dominant_hue(after)
    assert share > 0.9
    assert abs((hue - HUES[word][0] + 180) % 360 - 180) < 12
    np.testing.assert_array_equal(after[..., 3], before[..., 3])


def test_a_changed_package_is_refused(sources: Sources) -> None:
    other = dataclasses.replace(sources.packages[2], sha512="AAAA")
    with pytest.raises(TrainingError, match="not the pinned file"):
        tarball(other, sources.folder)


def test_an_emoji_outside_the_published_set_is_refused(sources: Sources) -> None:
    with pytest.raises(TrainingError, match="drop the concept"):
        read_emoji(["🍌"], sources.folder, sources.packages)


def test_only_matching_members_are_read(sources: Sources) -> None:
    found = read_members(sources.folder / sources.packages[0].filename, r"assets/1f34e\.webp")
    assert list(found) == ["assets/1f34e.webp"]


def test_the_shipped_list_is_sound() -> None:
    listed = ConceptList.read(CONCEPTS)
    assert 100 <= len(listed.concepts) <= 130
    assert set(listed.held_out) <= set(listed.concepts)
    named = [(line.noun, line.colour) for line in listed.concepts.values()]
    assert len(set(named)) == len(named), "two concepts under one name"


def test_an_unknown_field_of_the_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "concepts.toml"
    path.write_text('[concepts]\n"🍎" = { noun = "apple", color = "red" }\n', "utf-8")
    with pytest.raises(TrainingError, match="color"):
        ConceptList.read(path)
