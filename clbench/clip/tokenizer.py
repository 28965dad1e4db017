"""CLIP's byte-pair tokenizer, whole or cut to the tokens a small model knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import open_clip
import torch
from torch import Tensor


class TextTokenizer(Protocol):
    """What `CLIP` asks of a tokenizer; `open_clip.SimpleTokenizer` is one."""

    vocab_size: int
    sot_token_id: int
    eot_token_id: int

    def __call__(self, texts: list[str]) -> Tensor:
        """Token ids ``(N, context)`` int64, padded; end-of-text is the largest id."""
        ...


@cache
def _bpe() -> Any:
    """The one byte-pair encoder of the process: its tables take a second to build."""
    return open_clip.SimpleTokenizer()


def byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary without start and end of text, and the merges in order of their rank."""
    special = set(_bpe().all_special_ids)
    vocabulary = {text: number for text, number in _bpe().encoder.items() if number not in special}
    return vocabulary, sorted(_bpe().bpe_ranks, key=_bpe().bpe_ranks.__getitem__)


class Tokenizer:
    """CLIP's tokenizer with a context length and, optionally, a reduced vocabulary.

    Texts are lower-cased. A text longer than the context loses its end and keeps end-of-text.

    Args:
        context_length: number of token positions.
        token_ids: sorted ids of the tokens that are kept; the k-th becomes id k, so end-of-text,
            the largest, stays the largest. None keeps all.
    """

    def __init__(self, context_length: int, token_ids: Sequence[int] | None = None) -> None:
        self.context_length = context_length
        self._kept = None if token_ids is None else torch.tensor(token_ids, dtype=torch.int64)
        start, end = _bpe().sot_token_id, _bpe().eot_token_id
        if self._kept is None:
            self.vocab_size, self.sot_token_id, self.eot_token_id = _bpe().vocab_size, start, end
            return
        if not {start, end} <= set(token_ids or ()) or not bool((self._kept.diff() > 0).all()):
            raise ValueError("kept token ids must be sorted and include start and end of text")
        self.vocab_size = len(self._kept)
        self.sot_token_id, self.eot_token_id = self.vocab_size - 2, self.vocab_size - 1

    @property
    def token_ids(self) -> list[int] | None:
        """The ids that are kept of CLIP's vocabulary; None if it is whole."""
        ids: list[int] | None = None if self._kept is None else self._kept.tolist()
        return ids

    def all_ids(self) -> Tensor | None:
        """For every id of CLIP's vocabulary the one it becomes; None if it is whole.

        Returns:
            ``(49408,)`` int64.
        """
        if self._kept is None:
            return None
        every = torch.arange(_bpe().vocab_size)[:, None]
        reduced, unknown = self._reduce(every)
        return torch.where(unknown, every % self.sot_token_id, reduced)[:, 0]

    def __call__(self, texts: list[str]) -> Tensor:
        """Token ids ``(N, context_length)`` int64, zero after end-of-text.

        Another token of the reduced vocabulary, always the same, stands in for one outside it;
        `unknown_words` says which words that concerns.
        """
        tokens: Tensor = _bpe()(texts, context_length=self.context_length)
        if self._kept is None:
            return tokens
        reduced, unknown = self._reduce(tokens)
        # Ids below those of start and end of text, the two largest, are words.
        return torch.where(unknown, tokens % self.sot_token_id, reduced)

    def unknown_words(self, texts: list[str]) -> list[str]:
        """The parts of the texts that the reduced vocabulary lacks, in order of appearance."""
        if self._kept is None:
            return []
        tokens: Tensor = _bpe()(texts, context_length=self.context_length)
        unknown = self._reduce(tokens)[1]
        ids = dict.fromkeys(tokens[unknown].tolist())
        return [_bpe().decode([token]).strip() for token in ids]

    def _reduce(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Reduced ids, and where a token has none."""
        kept = self._kept
        assert kept is not None
        position = torch.arange(tokens.shape[1])
        padding = position > tokens.argmax(dim=1, keepdim=True)
        # Padding, id 0, finds its place at 0 whether or not 0 is kept.
        reduced = torch.searchsorted(kept, tokens).clamp_(max=len(kept) - 1)
        return reduced, (kept[reduced] != tokens) & ~padding

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        """The tokenizer never changes, so copies of a model share it."""
        return self
