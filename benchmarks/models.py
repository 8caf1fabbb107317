"""How good a model of things on plain grounds is: what its codec loses, whether its pictures show what was asked for.

    python benchmarks/models.py --judge-corpus runs/judge --held-out runs/unseen
    python benchmarks/models.py --judge-corpus runs/judge --model emoji --model emoji-fast --json

Two corpora are needed, and `segue train corpus` builds both:

    segue train corpus out=runs/judge seed=99 poses=any moved=40 styled=16     none of what was trained on
    segue train corpus out=runs/unseen which=unseen                  emoji none of whose pictures were trained on

The judge learns from the moved and turned pictures of the first, and what it is worth is measured on those that stand
in the middle, which it never sees; they are also what a good model draws. It is kept in that folder. docs/evaluation.md
says what each number means.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judge import QUICK, SHADED, Scale, Shelf, find_judge, measure_judge, say

from segue.errors import ModelAccessError, SegueError
from segue.evaluation.colour import object_colours
from segue.evaluation.diversity import diversity
from segue.evaluation.features import extract, floats
from segue.evaluation.fidelity import fidelity
from segue.evaluation.frechet import frechet_distance
from segue.evaluation.recognition import Accuracy, Judge, Verdict, accuracy
from segue.models.bundle import LatentDiffusion
from segue.models.perceptual import EfficientNetDistance, Lpips, is_here
from segue.training.captions import TEMPLATES, article
from segue.training.corpus import ConceptList
from segue.training.sampling import decoded, sample
from segue.types import Perceptual
from segue.zoo import load
from segue.zoo.load import default, find_card

DIVERSE = ("a lion", "a red apple", "a castle", "a rocket", "a cat face", "a rose", "a car", "a guitar")


@dataclass(frozen=True)
class Bench:
    """What the models are measured with; None where something is not at hand."""

    scale: Scale
    distances: tuple[Perceptual, ...]
    judge: Judge | None
    shelf: Shelf | None
    held_out: Shelf | None


def generate(model: LatentDiffusion, prompts: Sequence[str], seeds: Sequence[int], steps: int | None) -> torch.Tensor:
    """One picture for each prompt and seed, (n, 3, h, w) in [0, 1]: what `segue image` makes, many at a time."""
    return decoded(model, sample(model, prompts, seeds, steps=steps, progress=say)).cpu()


def measure_codec(model: LatentDiffusion, bench: Bench) -> dict[str, Any]:
    """How much of a picture is left after the codec, on things that it never saw."""
    assert bench.held_out is not None
    rows = bench.held_out.some(range(len(bench.held_out.lines)), bench.scale.copies)
    originals = floats(bench.held_out.bytes(rows))
    with torch.no_grad():
        parts = [model.codec.decode(model.codec.encode(part)).clamp(0, 1) for part in originals.split(16)]
    copies = torch.cat(parts)
    styles = [bench.held_out.lines[row].get("style", "3d") for row in rows]
    by_style: dict[str, float] = {}
    for style in sorted(set(styles)):
        mask = torch.tensor([one == style for one in styles])
        by_style[style] = fidelity(originals[mask], copies[mask]).psnr
    return {**asdict(fidelity(originals, copies, bench.distances)), "psnr_by_style": by_style}


def known_nouns(model: LatentDiffusion, judge: Judge) -> list[str]:
    """The nouns of the judge that the model claims to know: all where its card lists none."""
    card = find_card(model.name)
    words = set(card.vocabulary) if card is not None and card.vocabulary else set(judge.nouns)
    return [noun for noun in judge.nouns if noun in words]


def thing(noun: str, colour: str = "") -> str:
    """ "a green apple"."""
    words = f"{colour} {noun}".strip()
    return f"{article(words)} {words}"


def measure_nouns(
    model: LatentDiffusion, bench: Bench, nouns: Sequence[str]
) -> tuple[dict[str, Any], torch.Tensor, list[str]]:
    """(the share of nouns that the judge sees, the pictures, their nouns)."""
    assert bench.judge is not None
    asked = [noun for noun in nouns for _ in range(bench.scale.seeds)]
    seeds = list(range(bench.scale.seeds)) * len(nouns)
    start = time.perf_counter()
    pictures = generate(model, [thing(noun) for noun in asked], seeds, bench.scale.steps)
    seconds = time.perf_counter() - start
    verdicts = bench.judge(pictures, progress=say)
    found = accuracy(verdicts, asked, [SHADED["3d"]] * len(asked))
    table = {"top1": found.top1, "top5": found.top5, "nouns": len(nouns), "pictures": len(asked)}
    table = {**table, "of": len(bench.judge.nouns), "not_asked": sorted(set(bench.judge.nouns) - set(nouns))}
    return (
        {**table, "never_seen": missed(verdicts, asked), "seconds_per_picture": seconds / len(asked)},
        pictures,
        asked,
    )


def missed(verdicts: Sequence[Verdict], asked: Sequence[str]) -> list[str]:
    """The nouns that no picture of theirs was taken for, not even among the five likeliest."""
    seen = {noun for verdict, noun in zip(verdicts, asked, strict=True) if noun in verdict.nouns}
    return sorted(set(asked) - seen)


def measure_combinations(model: LatentDiffusion, bench: Bench, nouns: Sequence[str]) -> dict[str, Any]:
    """Pairs of a thing and a colour that no training picture shows: right if both are seen."""
    assert bench.judge is not None
    table = ConceptList.read()
    pairs = [
        (table.concepts[emoji].noun, colour)
        for emoji, colours in table.held_out.items()
        for colour in colours
        if table.concepts[emoji].noun in nouns
    ]
    pairs = pairs[: bench.scale.nouns]
    if not pairs:
        return {"combinations": 0}
    asked = [pair for pair in pairs for _ in range(bench.scale.colour_seeds)]
    seeds = list(range(bench.scale.colour_seeds)) * len(pairs)
    pictures = generate(model, [thing(*pair) for pair in asked], seeds, bench.scale.steps)
    seen = [noun in verdict.nouns for verdict, (noun, _) in zip(bench.judge(pictures), asked, strict=True)]
    hue = [found.word == colour for found, (_, colour) in zip(object_colours(pictures), asked, strict=True)]
    both = [a and b for a, b in zip(seen, hue, strict=True)]
    by_pair = {
        thing(*pair): sum(ok for ok, one in zip(both, asked, strict=True) if one == pair) / bench.scale.colour_seeds
        for pair in pairs
    }
    share = [sum(those) / len(those) for those in (seen, hue, both)]
    return {"noun": share[0], "colour": share[1], "both": share[2], "combinations": len(pairs), "by_pair": by_pair}


def measure_styles(model: LatentDiffusion, bench: Bench, nouns: Sequence[str]) -> dict[str, Any]:
    """Whether a style that is asked for is there, and the thing still in it."""
    assert bench.judge is not None
    chosen = [nouns[i * len(nouns) // bench.scale.styled] for i in range(bench.scale.styled)]
    table: dict[str, Any] = {}
    for style in TEMPLATES:
        template = "3d {}" if style == "3d" else TEMPLATES[style][0]
        prompts = [template.format(noun, a=article(noun)) for noun in chosen]
        verdicts = bench.judge(generate(model, prompts, [0] * len(prompts), bench.scale.steps))
        found: Accuracy = accuracy(verdicts, chosen, [SHADED.get(style, style)] * len(chosen))
        table[style] = {"style": found.style, "top5": found.top5, "pictures": len(chosen)}
    return table


def measure_diversity(model: LatentDiffusion, bench: Bench) -> dict[str, Any]:
    """How much the seed changes."""
    count = bench.scale.diverse
    prompts = [prompt for prompt in DIVERSE[:count] for _ in range(count)]
    groups = generate(model, prompts, list(range(count)) * count, bench.scale.steps).split(count)
    found = diversity(groups, bench.distances[0])
    return {**asdict(found), "relative": found.relative}


def measure_frechet(bench: Bench, pictures: torch.Tensor, nouns: Sequence[str]) -> dict[str, Any]:
    """Generated pictures against as many renders of the same nouns, and these against as many others."""
    assert bench.judge is not None
    assert bench.shelf is not None
    rows: dict[str, list[int]] = {}
    for row, line in enumerate(bench.shelf.lines):
        if line["background"] == "white" and line.get("style", "3d") == "3d":
            rows.setdefault(line["noun"], []).append(row)
    rng = np.random.default_rng(0)
    drawn: dict[str, list[int]] = {noun: [int(row) for row in rng.permutation(rows[noun])] for noun in set(nouns)}
    halves = [[drawn[noun].pop() for noun in nouns] for _ in range(2)]
    sets = [pictures, *(bench.shelf.bytes(half) for half in halves)]
    made, one, other = (bench.judge.standardised(extract(bench.judge.features, some, progress=say)) for some in sets)
    name = f"{bench.judge.features.name}, standardised on the judge's renders"
    between, floor = frechet_distance(made, one, name), frechet_distance(other, one, name)
    return {"distance": between.value, "renders": floor.value, "features": name, "pictures": list(between.pictures)}


def measure(name: str, bench: Bench) -> dict[str, Any]:
    """Everything that can be said of one model."""
    model = load(name).batched(64)
    table: dict[str, Any] = {"steps": bench.scale.steps or model.defaults.steps}
    if bench.held_out is not None:
        table["codec"] = measure_codec(model, bench)
    if bench.judge is not None:
        nouns = known_nouns(model, bench.judge)[: bench.scale.nouns]
        table["nouns"], pictures, asked = measure_nouns(model, bench, nouns)
        table["combinations"] = measure_combinations(model, bench, nouns)
        table["styles"] = measure_styles(model, bench, nouns)
        table["frechet"] = measure_frechet(bench, pictures, asked)
    if bench.distances:
        table["diversity"] = measure_diversity(model, bench)
    return table


def lines(name: str, table: dict[str, Any]) -> Iterator[str]:
    """The table of one model, for a person."""
    yield f"{name}, {table['steps']} steps"
    if "codec" in table:
        codec = table["codec"]
        far = ", ".join(f"{distance} {value:.3f}" for distance, value in codec["distances"].items())
        yield f"  codec, {codec['pictures']} unseen pictures    PSNR {codec['psnr']:.2f} dB, SSIM {codec['ssim']:.4f}"
        yield "    PSNR " + ", ".join(f"{style} {value:.2f}" for style, value in codec["psnr_by_style"].items())
        yield f"    {far}" if far else "    no perceptual distance at hand"
    if "nouns" in table:
        nouns, pairs, frechet = table["nouns"], table["combinations"], table["frechet"]
        seen = f"top-1 {nouns['top1']:.1%}, top-5 {nouns['top5']:.1%}"
        yield f"  {nouns['nouns']} of {nouns['of']} nouns, {nouns['pictures']} pictures    {seen}"
        if nouns["not_asked"]:
            yield f"    not asked for: {', '.join(nouns['not_asked'])}"
        yield f"    never recognised: {', '.join(nouns['never_seen']) or 'none'}"
        if pairs["combinations"]:
            yield (
                f"  {pairs['combinations']} unseen combinations    right {pairs['both']:.1%} "
                f"(thing {pairs['noun']:.1%}, colour {pairs['colour']:.1%})"
            )
        for style, found in table["styles"].items():
            yield f"  {style} asked for    style {found['style']:.1%}, thing top-5 {found['top5']:.1%}"
        yield f"  Fréchet distance to renders {frechet['distance']:.2f}, of renders to renders {frechet['renders']:.2f}"
        yield f"    (in {frechet['features']}; {frechet['pictures'][0]} pictures each)"
        yield f"  {nouns['seconds_per_picture']:.2f} s a picture on {torch.get_num_threads()} threads"
    if "diversity" in table:
        found = table["diversity"]
        yield (
            f"  diversity {found['relative']:.2f} ({found['distance']} {found['within']:.3f} between seeds, "
            f"{found['between']:.3f} between prompts)"
        )


def prepare(chosen: argparse.Namespace) -> tuple[Bench, str]:
    """What to measure with, and a line about what is missing ("" if nothing is)."""
    scale = QUICK if chosen.quick else Scale()
    shelf = Shelf.open(chosen.judge_corpus) if chosen.judge_corpus else None
    held_out = Shelf.open(chosen.held_out) if chosen.held_out else None
    try:
        distances: list[Perceptual] = [EfficientNetDistance.load()]
    except ModelAccessError as error:
        return Bench(scale, (), None, None, held_out), " ".join(" ".join(str(error).split("\n")[:2]).split())
    if is_here("lpips-alex"):
        distances.append(Lpips.load("alex"))
    judge = find_judge(shelf, scale) if shelf else None
    said = "" if shelf else "without --judge-corpus nothing is recognised; see --help"
    return Bench(scale, tuple(distances), judge, shelf, held_out), said


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a model instead of the embedded one; may be repeated")
    parser.add_argument("--judge-corpus", type=Path, metavar="FOLDER", help="what the judge learns from")
    parser.add_argument("--held-out", type=Path, metavar="FOLDER", help="what the codec is measured on")
    parser.add_argument("--quick", action="store_true", help="a few pictures of everything, to see that it runs")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    try:
        bench, missing = prepare(chosen)
        table: dict[str, Any] = {"missing": missing, "models": {}}
        if bench.judge is not None and bench.shelf is not None:
            table["judge"] = measure_judge(bench.judge, bench.shelf, bench.scale)
        for name in chosen.model or [default()]:
            table["models"][name] = measure(name, bench)
    except SegueError as error:
        raise SystemExit(str(error)) from None
    if chosen.json:
        print(json.dumps(table, indent=2, ensure_ascii=False))
        return
    if missing:
        print(missing)
    if "judge" in table:
        print(f"the judge, on renders of {table['judge']['nouns']} nouns that it never saw")
        for style, found in table["judge"]["renders"].items():
            print(
                f"  {style}, {found['pictures']} pictures    top-1 {found['top1']:.1%}, top-5 {found['top5']:.1%}, "
                f"style {found['style']:.1%}"
            )
        print(f"  colours by hue    {table['judge']['colour']:.1%}")
    for name, found in table["models"].items():
        print("\n".join(lines(name, found)))


if __name__ == "__main__":
    main()
