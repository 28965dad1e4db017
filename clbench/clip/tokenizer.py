"""CLIP's byte-pair tokenizer, whole or cut to the tokens a small model knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import open_clip
import torch
from torch import Tensor

from clbench.core.errors import ClbenchError


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

    def __call__(self, texts: list[str]) -> Tensor:
        """Token ids ``(N, context_length)`` int64, zero after end-of-text.

        Raises:
            ClbenchError: a text has a word outside the reduced vocabulary.
        """
        tokens: Tensor = _bpe()(texts, context_length=self.context_length)
        return tokens if self._kept is None else self._reduce(tokens, texts)

    def _reduce(self, tokens: Tensor, texts: list[str]) -> Tensor:
        kept = self._kept
        assert kept is not None
        position = torch.arange(tokens.shape[1])
        padding = position > tokens.argmax(dim=1, keepdim=True)
        reduced = torch.searchsorted(kept, tokens).clamp_(max=len(kept) - 1)
        unknown = (kept[reduced] != tokens) & ~padding
        if unknown.any():
            row = int(unknown.any(dim=1).nonzero()[0])
            words = _bpe().decode(tokens[row][unknown[row]].tolist()).strip()
            raise ClbenchError(
                f"the text {texts[row]!r} has words that the model's reduced vocabulary of "
                f"{len(kept)} tokens lacks: {words!r}; use other words or another backbone"
            )
        return reduced  # padding, id 0, finds its place at 0 whether or not 0 is kept

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        """The tokenizer never changes, so copies of a model share it."""
        return self
