"""A small CLIP-style tokenizer (byte-level BPE, lower case) learned from the captions of a corpus.

Byte-pair encoding as in Sennrich et al. 2016 (arXiv:1508.07909, algorithm 1) over bytes, with CLIP's "</w>" at the end
of words. The trainer of `tokenizers` numbers its tokens differently in every process, which a repeatable run can't use.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from segue.training.folders import replaced

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")  # letters, single digits, other signs


def train_tokenizer(captions: Iterable[str], folder: Path, *, vocabulary: int, positions: int) -> CLIPTokenizer:
    """Learn at most `vocabulary` tokens and write tokenizer.json, vocab.json and merges.txt to `folder`.

    Every byte is a token, alone and at a word's end, so any text can be encoded. `positions` is the length that prompts
    are padded to. transformers 5 reads tokenizer.json, transformers 4 the other two.
    """
    counts = Counter(word for caption in captions for word in _WORDS.findall(caption.lower()))
    alphabet = list(byte_signs().values())
    base = [BEGIN, END, *alphabet, *(sign + "</w>" for sign in alphabet)]
    merges = learn_merges(counts, vocabulary - len(base))
    vocab = {token: number for number, token in enumerate([*base, *("".join(pair) for pair in merges)])}
    pieces: Any = merges  # pairs; the annotation of transformers knows only the lines of a file
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=pieces, model_max_length=positions, **special)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    with replaced(folder) as part:
        tokenizer.save_pretrained(part)
        (part / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
        (part / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return tokenizer


def learn_merges(counts: Mapping[str, int], most: int, at_least: int = 4) -> list[tuple[str, str]]:
    """The pairs of tokens to merge, most frequent first; of equals the first in the alphabet.

    counts: how often each word occurs. most: how many merges. at_least: how often a pair must occur.
    """
    signs = byte_signs()
    words: dict[tuple[str, ...], int] = {}
    for word, count in counts.items():
        parts = [signs[byte] for byte in word.encode()]
        words[(*parts[:-1], parts[-1] + "</w>")] = count
    merges: list[tuple[str, str]] = []
    while len(merges) < most:
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, count in words.items():
            for pair in pairwise(parts):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < at_least:
            break
        merges.append(best)
        words = {_merged(parts, best): count for parts, count in words.items()}
    return merges


def _merged(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    joined: list[str] = []
    for part in parts:
        # A part that was just joined can't be the left half again: it is longer than the pair's left.
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)


def byte_signs() -> dict[int, str]:
    """A printable character for every byte, as GPT-2 and CLIP assign them: itself, or one from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
