"""No caption is said of two emoji, and none says what is held out: in a synthetic list, and in the one that ships."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from segue.errors import TrainingError
from segue.training.captions import COLOUR_WORDS, TEMPLATES, Concept, Look, captions
from segue.training.corpus import CONCEPTS, ConceptList, chosen
from segue.training.naming import meanings, others, recolours, told_apart
from segue.training.pictures import CANONICAL, Placement
from segue.training.sources import Shelf

PACKAGES = Path(os.environ.get("SEGUE_PACKAGES", "runs/packages"))
CAT = Concept("cat face", "orange", character="🐱", name="cat face", also=("cat", "kitty"))
WHOLE_CAT = Concept("cat", "orange", character="🐈", name="cat")
BOOKS = (
    Concept("book", "red", character="📕", name="closed book", free=True),
    Concept("green book", character="📗", name="green book"),
)
PLANES = (
    Concept("airplane", "gray", character="✈️", name="airplane"),
    Concept("small airplane", "gray", character="🛩️", name="small airplane"),
)
SHOES = (
    Concept("running shoe", character="👟", name="running shoe", also=("shoe",)),
    Concept("flat shoe", character="🥿", name="flat shoe"),
)
SNOWMEN = (
    Concept("snowman", "white", character="⛄", name="snowman without snow"),
    Concept("snowman", character="☃️", name="snowman"),
)
BRICKS = (
    Concept("brick", "red", character="🅰️", name="brick one"),
    Concept("brick", "yellow", character="🅱️", name="brick two"),
)
EVERYTHING = (CAT, WHOLE_CAT, *BOOKS, *PLANES, *SHOES, *SNOWMEN, *BRICKS)
UNSAID = ("blue cat face", "blue cat")


def said(concepts: Sequence[Concept], means: Mapping[str, str]) -> dict[str, set[str]]:
    """The emoji that each caption is said of, in all styles and colours, in the middle and small."""
    found: dict[str, set[str]] = {}
    placements = (CANONICAL, Placement(0.5))
    for concept in told_apart(concepts, means):
        taken = others(concept, means)
        for colour in (concept.colour, *recolours(concept, means)):
            for style in TEMPLATES:
                if style == "line art" and means[concept.noun.lower()] != concept.character:
                    continue
                for placement in placements:
                    given = captions(concept, Look(colour, style=style, placement=placement), taken=taken)
                    assert given, f"{concept.character} in {colour} has no caption"
                    for caption in given:
                        found.setdefault(caption.lower(), set()).add(concept.character)
    return found


def test_every_caption_means_one_emoji() -> None:
    means = meanings(EVERYTHING, UNSAID)
    found = said(EVERYTHING, means)
    assert {caption: who for caption, who in found.items() if len(who) > 1} == {}
    assert found["a cat"] == {"🐈"} and found["a kitty"] == {"🐱"} and found["a red cat face"] == {"🐱"}
    assert found["a green book"] == {"📗"} and found["a blue book"] == {"📕"}
    assert found["a small airplane"] == {"🛩️"} and found["flat shoe"] == {"🥿"}
    assert found["a snowman"] == {"☃️"} and found["a brick"] == {"🅰️"} and found["a yellow brick"] == {"🅱️"}


def test_without_the_rule_captions_would_mean_two() -> None:
    """What the law above asserts is not so by itself."""
    given = [set(captions(PLANES[0], Look("gray", placement=Placement(0.5)))), set(captions(PLANES[1], Look("gray")))]
    assert given[0] & given[1]
    given = [set(captions(c, Look(c.colour))) for c in (CAT, WHOLE_CAT)]
    assert given[0] & given[1]
    assert "green" in recolours(BOOKS[0], {"book": "📕"})


def test_a_held_out_pair_is_held_out_of_all_that_share_the_name() -> None:
    found = said(EVERYTHING, meanings(EVERYTHING, UNSAID))
    assert not [caption for caption in found if "blue cat" in caption or "blue kitty" in caption]
    assert "blue" in recolours(WHOLE_CAT, meanings(EVERYTHING)), "it is the pair that keeps it away"


def test_an_emojis_own_name_cannot_be_held_out() -> None:
    with pytest.raises(TrainingError, match=r"green book.* is the name of 📗"):
        meanings(BOOKS, ("green book",))


def test_the_shipped_list_is_unambiguous() -> None:
    """With what the packages would say in place of names left out: nouns, with the colour where two share one."""
    listed = ConceptList.read(CONCEPTS)
    nouns = [line.noun for line in listed.concepts.values()]
    concepts = [
        Concept(
            **vars(line),
            character=character,
            name=f"{line.colour} {line.noun}" if nouns.count(line.noun) > 1 else line.noun,
        )
        for character, line in listed.concepts.items()
    ]
    law(concepts, listed)
    assert told_apart(concepts, meanings(concepts, listed.unsaid)) == concepts, "a word was given to two concepts"


@pytest.mark.skipif(
    not PACKAGES.is_dir(),
    reason=f"the emoji packages are not in {PACKAGES}; SEGUE_PACKAGES names a folder that has them",
)
@pytest.mark.parametrize("which", ["listed", "published"])
def test_what_is_built_from_the_packages_is_unambiguous(which: str) -> None:
    listed = ConceptList.read(CONCEPTS)
    law(chosen(Shelf.read(PACKAGES), listed, which)[0], listed)


def law(concepts: Sequence[Concept], listed: ConceptList) -> None:
    """Every caption means one emoji, and none says a held-out pair."""
    means = meanings(concepts, listed.unsaid)
    found = said(concepts, means)
    assert {caption: who for caption, who in found.items() if len(who) > 1} == {}
    secrets = {name.lower() for name in listed.unsaid}
    assert len(secrets) >= 25
    for caption in found:
        if COLOUR_WORDS.intersection(caption.split()):
            assert not [secret for secret in secrets if f" {secret}," in f" {caption},"], caption


def test_held_out_keys_must_be_among_the_concepts(tmp_path: Path) -> None:
    path = tmp_path / "concepts.toml"
    path.write_text('[concepts]\n"🍎" = { noun = "apple" }\n[held_out]\n"🍏" = ["red"]\n', "utf-8")
    with pytest.raises(TrainingError, match="🍏"):
        ConceptList.read(path)


def test_a_concept_of_its_own_colour_alone_keeps_its_words() -> None:
    alone = replace(CAT, recolour=False)
    assert told_apart([alone], meanings([alone])) == [alone]
