"""The corpus says the truth about its pictures, keeps its secrets, and is the same whenever it is built."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segue.errors import TrainingError
from segue.training.captions import COLOUR_WORDS, Concept, Look, placed
from segue.training.corpus import CONCEPTS, ConceptList, CorpusConfig, build, chosen, draw, styles_of
from segue.training.pictures import (
    CANONICAL,
    GROUNDS,
    HUES,
    Placement,
    composite,
    decode,
    defringe,
    dominant_hue,
    ground,
    place,
    recolour,
    to_hsv,
    turned_side,
)
from segue.training.sources import STYLES, Shelf, read_members, tarball

from .conftest import SMALL, Sources


def manifest(corpus: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (corpus / "manifest.jsonl").read_text("utf-8").splitlines()]


def test_every_picture_stands_on_the_ground_its_captions_name(corpus: Path) -> None:
    pictures = np.load(corpus / "pictures.npy")
    entries = manifest(corpus)
    assert len(entries) == len(pictures)
    assert {entry["background"] for entry in entries} == set(GROUNDS)
    silent = 0
    for entry, picture in zip(entries, pictures, strict=True):
        corner = np.array(GROUNDS[entry["background"]])
        assert np.abs(picture[0, 0].astype(int) - corner).max() < 30
        for caption in entry["captions"]:
            others = [word for word in GROUNDS if f" {word} background" in caption and word not in entry["background"]]
            assert not others, caption
            silent += entry["background"] != "white" and "background" not in caption
    assert 0.5 < silent / sum(len(e["captions"]) for e in entries if e["background"] != "white") < 0.7


def test_recoloured_pictures_have_the_hue_their_captions_say(corpus: Path) -> None:
    pictures = np.load(corpus / "pictures.npy").astype(np.float32) / 255
    own = {"🍎": "red", "🍏": "green", "🐘": "gray", "⭐": "yellow"}
    seen = 0
    for entry, picture in zip(manifest(corpus), pictures, strict=True):
        if entry["colour"] == own[entry["concept"]] or entry["placement"]["scale"] != 0.9 or entry["style"] != "3d":
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
    bare = {e["concept"] for e in manifest(corpus) if "an apple" in e["captions"]}
    assert bare == {"🍎"}


def test_weights_follow_the_recipe(corpus: Path) -> None:
    config = CorpusConfig()
    stars = [entry for entry in manifest(corpus) if entry["concept"] == "⭐"]
    canonical = dataclasses.asdict(CANONICAL)
    moved = sum(e["weight"] for e in stars if e["placement"] != canonical and e["style"] == "3d")
    styled = sum(entry["weight"] for entry in stars if entry["style"] != "3d")
    assert sum(entry["weight"] for entry in stars) == pytest.approx(1.0)
    assert moved == pytest.approx(config.weight_moved)
    assert styled == pytest.approx(config.weight_styled)


def test_styles_are_those_that_were_drawn_and_are_named(corpus: Path) -> None:
    entries = manifest(corpus)
    assert {e["style"] for e in entries if e["concept"] == "⭐"} == {"3d", "flat", "line art"}
    assert {e["style"] for e in entries if e["concept"] == "🍎"} == {"3d", *STYLES}
    assert "line art" not in {e["style"] for e in entries if e["concept"] == "🍏"}, "its lines are those of the apple"
    for entry in entries:
        word = {"line art": "line", "3d": ""}.get(entry["style"], entry["style"])
        for caption in entry["captions"]:
            assert word in caption
            assert entry["style"] != "3d" or not {"flat", "gradient", "line"} & set(caption.replace(",", "").split())


def test_line_art_shows_on_dark_grounds(sources: Sources) -> None:
    apple = Shelf.read(sources.folder, sources.packages).emoji("🍎")
    concept = Concept("apple", "red", character="🍎", name="red apple")
    lines = styles_of(apple, 32)["line art"]
    for word, light in (("white", False), ("black", True), ("dark blue", True)):
        centre = draw(lines, concept, Look("red", word, "line art"), 32)[16, 16].mean()
        assert (centre > 0.5) == light, word


def test_objects_stay_whole_and_as_they_were_where_asked(corpus: Path) -> None:
    angles = set()
    for entry in manifest(corpus):
        placement = Placement(**entry["placement"])
        half = placement.scale / 2 * turned_side(placement.angle)
        assert max(abs(placement.dx), abs(placement.dy)) + half <= 0.5 + 2e-3
        assert not (placement.flip and entry["concept"] == "⭐")
        assert not (placement.angle and entry["concept"] == "🐘")
        angles.add(placement.angle)
    assert len(angles) > 3


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        (Placement(), ("", [])),
        (Placement(0.5, -0.2, -0.2), ("small", ["in the top left corner"])),
        (Placement(0.5, 0.2, 0.0), ("small", ["on the right"])),
        (Placement(0.7, 0.0, 0.19, 30.0), ("", ["tilted to the left", "at the bottom"])),
        (Placement(0.7, 0.0, 0.0, -30.0), ("", ["tilted to the right"])),
        (Placement(0.7, 0.125, 0.0, 15.0), ("", [])),
        (Placement(1.0, 0.0, 0.0, 180.0), ("big", ["upside down"])),
    ],
)
def test_a_placement_is_called_what_it_looks_like(placement: Placement, said: tuple[str, list[str]]) -> None:
    assert placed(placement) == said
    bar = np.zeros((64, 64, 4), np.float32)
    bar[:32, 30:34] = 1  # the upper half of an upright bar
    ys, xs = np.nonzero(place(bar, 64, placement)[..., 3] > 0.5)
    turned = math.degrees(
        math.atan2(32 + 64 * placement.dx - xs.mean() - 0.5, 32 + 64 * placement.dy - ys.mean() - 0.5)
    )
    assert (turned - placement.angle + 180) % 360 - 180 == pytest.approx(0, abs=4), "positive angles lean to the left"


def test_what_is_kept_back_is_in_no_other_corpus(sources: Sources) -> None:
    listed = ConceptList.read(sources.concepts)
    shelf = many(Shelf.read(sources.folder, sources.packages))
    shown = {
        which: {e.character for e in chosen(shelf, listed, which)[1]} for which in ("listed", "published", "unseen")
    }
    assert len(shown["unseen"]) == 3
    assert not shown["unseen"] & (shown["published"] | shown["listed"])
    assert shown["listed"] < shown["published"]


def many(shelf: Shelf) -> Shelf:
    """The shelf with fifty more emoji, all of which look like the apple."""
    extra = [chr(0x1F600 + i) for i in range(50)]
    names = {**shelf.names, **{c: {"name": f"thing {ord(c):x}", "group": "Things"} for c in extra}}
    slugs = [f"thing-{ord(c):x}" for c in extra]
    pictures = {**shelf.pictures, **{f"assets/{ord(c):04x}.webp": shelf.pictures["assets/1f34e.webp"] for c in extra}}
    drawings = {f"icons/{folder}/{name}.svg": b"" for name in slugs for folder in STYLES.values()}
    return replace(
        shelf,
        names=names,
        published=shelf.published | set(slugs),
        pictures=pictures,
        drawings={**shelf.drawings, **drawings},
    )


def test_building_again_gives_the_same_bytes(corpus: Path, sources: Sources, tmp_path: Path) -> None:
    build(tmp_path, sources.folder, SMALL, sources.concepts, sources.packages)
    for name in ("pictures.npy", "manifest.jsonl", "sources.json"):
        assert (tmp_path / name).read_bytes() == (corpus / name).read_bytes()
    recorded = json.loads((corpus / "sources.json").read_text("utf-8"))
    assert recorded["pictures_sha256"] == hashlib.sha256((corpus / "pictures.npy").read_bytes()).hexdigest()
    assert [package["sha512"] for package in recorded["packages"]] == [p.sha512 for p in sources.packages]


def test_defringing_removes_the_pale_outline(sources: Sources) -> None:
    apple = Shelf.read(sources.folder, sources.packages).emoji("🍎")
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
    apple = Shelf.read(sources.folder, sources.packages).emoji("🍎")
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
        Shelf.read(sources.folder, sources.packages).emoji("🍌")


def test_only_matching_members_are_read(sources: Sources) -> None:
    found = read_members(sources.folder / sources.packages[0].filename, r"assets/1f34e\.webp")
    assert list(found) == ["assets/1f34e.webp"]


def test_the_shipped_list_is_sound() -> None:
    listed = ConceptList.read(CONCEPTS)
    assert len({line.noun for line in listed.concepts.values()}) >= 120
    assert set(listed.held_out) <= set(listed.concepts)
    named = [(line.noun, line.colour) for line in listed.concepts.values()]
    assert len(set(named)) == len(named), "two concepts under one name"


def test_an_unknown_field_of_the_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "concepts.toml"
    path.write_text('[concepts]\n"🍎" = { noun = "apple", color = "red" }\n', "utf-8")
    with pytest.raises(TrainingError, match="color"):
        ConceptList.read(path)


def test_listed_concepts_can_be_drawn_oftener(sources: Sources, tmp_path: Path) -> None:
    config = replace(SMALL, which="published", weight_listed=4.0)
    (tmp_path / "list.toml").write_text('[concepts]\n"🍎" = { noun = "apple", colour = "red" }\n', "utf-8")
    build(tmp_path, sources.folder, config, tmp_path / "list.toml", sources.packages)
    weights: dict[str, float] = {}
    for entry in manifest(tmp_path):
        weights[entry["concept"]] = weights.get(entry["concept"], 0.0) + entry["weight"]
    assert weights["🍎"] == pytest.approx(4 * weights["⭐"]) == pytest.approx(4.0)


def test_few_poses_are_on_a_grid_and_any_are_not(sources: Sources, corpus: Path, tmp_path: Path) -> None:
    config = replace(SMALL, poses="any")
    build(tmp_path, sources.folder, config, sources.concepts, sources.packages)

    def shifts(folder: Path) -> list[float]:
        return [16 * entry["placement"][axis] for entry in manifest(folder) for axis in ("dx", "dy")]

    assert all(shift.is_integer() for shift in shifts(corpus))
    assert len(set(shifts(corpus))) > 4
    assert not all(shift.is_integer() for shift in shifts(tmp_path))
    sizes = {entry["placement"]["scale"] for entry in manifest(corpus)}
    assert len(sizes) < 10 < len({entry["placement"]["scale"] for entry in manifest(tmp_path)})


def test_a_few_pictures_of_each_concept(sources: Sources, tmp_path: Path) -> None:
    """Drawn by their weights, none twice; what has no weight is not among them, and the rest weigh alike."""
    for count, some in ((5, SMALL), (5, replace(SMALL, seed=8))):
        config = replace(some, pictures=count, weight_plain=0.0, weight_ground=0.0)
        build(tmp_path, sources.folder, config, sources.concepts, sources.packages)
        entries = manifest(tmp_path)
        assert len(entries) == 4 * count
        assert {entry["weight"] for entry in entries} == {1 / count}
        shown = [entry for entry in entries if entry["style"] == "3d"]
        still = [e for e in shown if replace(Placement(**e["placement"]), flip=False) == Placement()]
        assert not {(e["concept"], e["colour"]) for e in still} & {("🍎", "red"), ("🐘", "gray"), ("⭐", "yellow")}
    every = replace(SMALL, pictures=1000)
    build(tmp_path, sources.folder, every, sources.concepts, sources.packages)
    assert len(manifest(tmp_path)) > 4 * 20


def test_drawings_are_as_sharp_as_they_are_large(sources: Sources) -> None:
    apple = Shelf.read(sources.folder, sources.packages).emoji("🍎")
    assert {style: picture.shape[0] for style, picture in styles_of(apple, 32).items()}["flat"] == 64
    large = styles_of(apple, 512)
    assert large["flat"].shape[0] == 512 and large["3d"].shape[0] == 64
