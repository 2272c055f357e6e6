"""Turn texts into token ids, as OpenAI's CLIP does."""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import ftfy
import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from torch import Tensor

from maotune.files import read_text

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of some texts."""

    ids: Tensor
    """(C, S) int64: start-of-text, the text, end-of-text; padded with 0 to S, the length of the longest."""
    eot: Tensor
    """(C,) int64, the position of the end-of-text."""


class Tokenizer:
    """A byte-pair encoding, after CLIP's cleaning of the text."""

    def __init__(self, encoding: tokenizers.Tokenizer, context_length: int) -> None:
        start, end = encoding.token_to_id(START), encoding.token_to_id(END)
        if start is None or end is None:
            raise ValueError(f"not a vocabulary of CLIP's: it has no {START} or no {END}")
        self._encoding = encoding
        self.start: int = start
        self.end: int = end
        self.vocabulary_size: int = encoding.get_vocab_size()
        self.context_length = context_length

    @classmethod
    def openai(cls, context_length: int = 77) -> Tokenizer:
        """Build the tokenizer of OpenAI's and open_clip's models (49,408 tokens), which ships with the package."""
        packed = files("maotune") / "assets" / "clip_bpe" / "merges.txt.gz"
        lines = gzip.decompress(packed.read_bytes()).decode().splitlines()
        merges = [(left, right) for left, right in map(str.split, lines)]
        letters = _byte_letters()
        names = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges)]
        vocabulary = {name: number for number, name in enumerate([*names, START, END])}
        encoding = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
        words = tokenizers.Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
        encoding.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(words, behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        encoding.add_special_tokens([START, END])
        return cls(encoding, context_length)

    @classmethod
    def from_file(cls, path: Path, context_length: int) -> Tokenizer:
        """Read a ``tokenizer.json`` of Hugging Face tokenizers.

        Raises:
            ValueError: it is no such file, or has not CLIP's beginning and end of a text.
        """
        text = read_text(path)
        try:
            encoding = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # of no kind of its own
            raise ValueError(f"{path} describes no tokenizer that can be read: {error!s:.200}") from error
        encoding.no_padding()
        encoding.no_truncation()
        return cls(encoding, context_length)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Return the token ids of the texts.

        Raises:
            ValueError: there is no text, or one has more tokens than the context (the message shows it).
        """
        if isinstance(texts, str) or not texts:
            raise ValueError("tokenize takes a list of at least one text")
        try:
            encoded = self._encoding.encode_batch([clean(text) for text in texts], add_special_tokens=False)
        except Exception as error:  # of no kind of its own
            raise ValueError(f"the tokenizer of this CLIP cannot encode {texts[0]!r:.80}: {error!s:.200}") from error
        rows = [[self.start, *item.ids, self.end] for item in encoded]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > self.context_length:
                raise ValueError(
                    f"{text!r} takes {len(row)} tokens, but the context of this CLIP has {self.context_length}: "
                    "shorten it"
                )
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
        return Tokens(ids, torch.tensor([len(row) - 1 for row in rows]))


def clean(text: str) -> str:
    """Clean a text as CLIP does: repair broken Unicode, resolve HTML entities, single spaces, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _byte_letters() -> list[str]:
    """Return the printable letter for each byte, in the order of the vocabulary: printable bytes first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + number) for number in range(len(others)))]
