"""The CLIP that methods receive: open_clip's network with split attention and text prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal, cast

import open_clip
import torch
from open_clip import transformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.architecture import check_towers
from clbench.clip.layers.activation import QuickGELU
from clbench.clip.layers.attention import PROJECTIONS, SplitAttention, packed_state_dict
from clbench.clip.layers.together import declare, is_pure
from clbench.clip.shortcuts.constancy import Memo, bit_digests, fingerprint, numerics
from clbench.clip.tokenizer import TextTokenizer
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.task import ClassTexts

Encoder = Literal["vision", "text"]

CHUNK = 256
"""Texts encoded at once where no gradient is needed."""
REMEMBERED = 128
"""Text features kept, each of one set of classes or prompts, and token ids of classes."""


@declare(pure=True, by_identity=("tokenizer",), ignored=("_memo", "_exported_names", "config"))
class CLIP(nn.Module):
    """A CLIP with ViT image encoder and causal text encoder.

    The attention of `network` is split into query, key, value and output layers, which can be
    listed with `attention_linears` and exchanged with `replace`. `logit_scale` never trains.

    Args:
        network: an `open_clip.CLIP` or `open_clip.CustomTextCLIP`; it is changed in place.
        tokenizer: turns texts into padded token ids.
        mean: mean of the RGB channels of its training images, in [0, 1].
        std: their standard deviation.
        name: architecture, for messages.
        config: the network's open_clip configuration; None where it is not known, and the model
            cannot be exported.

    Raises:
        ClbenchError: the network is not a ViT CLIP.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: open_clip.CLIP,
        tokenizer: TextTokenizer,
        mean: Sequence[float],
        std: Sequence[float],
        name: str,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.network = network
        self.tokenizer = tokenizer
        # CustomTextCLIP keeps the text tower in `.text`, CLIP spreads it over the network itself.
        self._text_path = "network.text" if hasattr(network, "text") else "network"
        check_towers(self.network.visual, self._text, name)
        self.image_size: int = self.network.visual.image_size[0]
        self.context_length: int = self.network.context_length
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._exported_names = list(network.state_dict())
        blocks: list[Any] = [*self.blocks("text"), *self.blocks("vision")]
        for block in blocks:
            block.attn = SplitAttention.from_packed(cast(nn.MultiheadAttention, block.attn))
            if type(block.mlp.gelu) is transformer.QuickGELU:
                block.mlp.gelu = QuickGELU()
        self.logit_scale.requires_grad = False
        self._memo = Memo(REMEMBERED)

    @property
    def logit_scale(self) -> nn.Parameter:
        """Logarithm of the factor between cosine similarity and logits."""
        return cast(nn.Parameter, self.network.logit_scale)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_scale.device

    @property
    def _text(self) -> Any:
        return self.get_submodule(self._text_path)

    def requires_grad_(self, requires_grad: bool = True) -> CLIP:
        """Train or freeze every parameter except `logit_scale`, which stays frozen."""
        super().requires_grad_(requires_grad)
        self.logit_scale.requires_grad = False
        return self

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids ``(N, L)`` int64 on the model's device, L being the longest text's length.

        Positions after the last end-of-text are cut off: under the causal mask they have no
        influence on a text's feature, and attention over them costs most of the encoder's time.
        """
        tokens = self.tokenizer([texts] if isinstance(texts, str) else list(texts))
        return tokens[:, : int(_lengths(tokens).max())].to(self.device)

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """The words for which another stands in, because the model's vocabulary is reduced."""
        find = getattr(self.tokenizer, "unknown_words", None)
        return [] if find is None else find(list(texts))

    def encode_image(self, images: Tensor) -> Tensor:
        """Unit-length image features ``(B, D)``.

        Args:
            images: ``(B, 3, H, W)``, uint8 in [0, 255], or float and already normalised.

        Raises:
            ClbenchError: H or W is not `image_size`.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ClbenchError(
                f"images are {images.shape[-2]} x {images.shape[-1]} but {self.name} takes "
                f"{self.image_size} x {self.image_size}"
            )
        images = images.to(self.device, non_blocking=True)
        if not images.is_floating_point():
            images = images.to(self.mean.dtype).div_(255).sub_(self.mean).div_(self.std)
        return F.normalize(self.network.visual(images).float(), dim=-1)

    def encode_together(self, *batches: Tensor) -> Sequence[Tensor]:
        """`encode_image` of several batches in one pass, which is faster where they are small."""
        if len({batch.dtype for batch in batches}) > 1:
            return [self.encode_image(batch) for batch in batches]
        images = torch.cat([batch.to(self.device, non_blocking=True) for batch in batches])
        return torch.split(self.encode_image(images), [len(batch) for batch in batches])

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Unit-length text features ``(N, D)``.

        Args:
            tokens: ``(N, L)`` with L up to `context_length`; every row holds an end-of-text,
                the largest id. Any width that keeps it gives the same features (`tokenize`
                returns the smallest).
        """
        text = self._text
        tokens = tokens.to(self.device, non_blocking=True)
        width = tokens.shape[1]
        x = text.token_embedding(tokens) + text.positional_embedding[:width]
        mask, ends = text.attn_mask[:width, :width], tokens.argmax(dim=-1)
        x = text.transformer(x, attn_mask=mask)
        x = text.ln_final(x[torch.arange(len(x), device=x.device), ends])
        if isinstance(text.text_projection, nn.Module):
            x = text.text_projection(x)
        elif text.text_projection is not None:
            x = x @ text.text_projection
        return F.normalize(x.float(), dim=-1)

    def logits(self, images: Tensor, class_features: Tensor) -> Tensor:
        """Score images among classes: ``exp(logit_scale) * f(I) @ class_features.T``.

        Args:
            images: ``(B, 3, H, W)`` as in `encode_image`.
            class_features: ``(C, D)`` of unit length.

        Returns:
            ``(B, C)``.
        """
        return self.similarities(self.encode_image(images), class_features)

    def similarities(self, image_features: Tensor, class_features: Tensor) -> Tensor:
        """``exp(logit_scale) * image_features @ class_features.T``, ``(B, D)`` and ``(C, D)``.

        The product is taken in full precision also under autocast: bfloat16 keeps logits of
        this size only to about 0.1.
        """
        with torch.autocast(self.device.type, enabled=False):
            return self.logit_scale.exp() * image_features @ class_features.float().T

    def text_features(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Features of tokenised texts as `encode_text` gives them, for use in every step.

        Where no gradient of the text encoder is asked for, all rows are encoded once, without a
        graph, and again whenever anything in the encoder has changed: a tensor, however it was
        written, a part, or a part's attributes. Parts that do not declare what they depend on
        (`clbench.clip.layers.together`) are run anew every time.

        Args:
            tokens: ``(N, L)`` token ids.
            rows: ``(M,)`` which of them; None means all.

        Returns:
            ``(N, D)`` or ``(M, D)`` of unit length.
        """
        if self._text_trains():
            return self.encode_text(tokens if rows is None else tokens[rows])

        @torch.no_grad()
        def encode() -> Tensor:
            return torch.cat([self.encode_text(part) for part in torch.split(tokens, CHUNK)])

        features = self._remembered(bit_digests([tokens]), encode)
        return features if rows is None else features[rows]

    def class_features(self, classes: ClassTexts) -> Tensor:
        """Unit-length features ``(C, D)``: per class, the mean over its prompts' features.

        Every prompt's feature is normalised before and the mean after averaging. Where no
        gradient is asked for, the result is remembered (see `text_features`).
        """
        if self._text_trains():
            return self._class_features(classes)
        return self._remembered((classes, self.tokenizer), lambda: self._class_features(classes))

    @contextmanager
    def remembering_in(self, memo: Memo) -> Iterator[None]:
        """While open, text features are remembered in another place than the model's own."""
        own, self._memo = self._memo, memo
        try:
            yield
        finally:
            self._memo = own

    def blocks(self, encoder: Encoder) -> list[nn.Module]:
        """The residual attention blocks of one encoder, input side first."""
        return [self.get_submodule(path) for path in self._block_paths(encoder)]

    def block_linears(self) -> list[tuple[str, nn.Linear]]:
        """Names and layers of all linear layers of the blocks, text blocks before vision blocks."""
        encoders: tuple[Encoder, ...] = ("text", "vision")
        return [
            (f"{path}.{name}", module)
            for encoder in encoders
            for path in self._block_paths(encoder)
            for name, module in self.get_submodule(path).named_modules()
            if isinstance(module, nn.Linear)
        ]

    def attention_linears(
        self,
        encoders: Literal["both", "vision", "text"] = "both",
        layers: Collection[int] | None = None,
        projections: Sequence[str] = ("q", "k", "v", "o"),
    ) -> list[tuple[str, nn.Linear]]:
        """Names and layers of attention projections, text blocks before vision blocks.

        Args:
            encoders: which encoder, or both.
            layers: block indices from 0 in each encoder; None means all.
            projections: any of ``q``, ``k``, ``v``, ``o``.

        Raises:
            ClbenchError: unknown encoder or projection, or no block has one of the indices.
            ValueError: a projection is not an `nn.Linear`, because an adapter took its place.
        """
        if encoders not in ("both", "vision", "text"):
            raise unknown_name("encoder", encoders, ["both", "vision", "text"])
        for projection in projections:
            if projection not in PROJECTIONS:
                raise unknown_name("projection", projection, PROJECTIONS)
        chosen: tuple[Encoder, ...] = ("text", "vision") if encoders == "both" else (encoders,)
        depth = max(len(self._block_paths(encoder)) for encoder in chosen)
        if outside := [layer for layer in layers or () if not 0 <= layer < depth]:
            raise ClbenchError(f"layer {outside[0]} does not exist: {self.name} has {depth} layers")
        names = [
            f"{path}.attn.{attribute}"
            for encoder in chosen
            for layer, path in enumerate(self._block_paths(encoder))
            if layers is None or layer in layers
            for short, attribute in PROJECTIONS.items()
            if short in projections
        ]
        return [(name, self._linear(name)) for name in names]

    def replace(self, name: str, module: nn.Module) -> None:
        """Put another module in the place of a submodule, by its dotted name.

        Raises:
            AttributeError: there is no submodule of this name.
        """
        self.get_submodule(name)
        parent, _, child = name.rpartition(".")
        setattr(self.get_submodule(parent), child, module)

    def export_state_dict(self) -> dict[str, Tensor]:
        """Copies of the weights under open_clip's names, attention packed again, bit for bit.

        Raises:
            ValueError: adapters are still attached; merge them and put plain layers back first.
        """
        state = packed_state_dict(self.network)
        if surplus := sorted(set(state) ^ set(self._exported_names)):
            raise ValueError(f"cannot export while adapters are attached: see {surplus[0]}")
        return {name: state[name].detach().clone() for name in self._exported_names}

    def fingerprint(self) -> str:
        """SHA-256 hex digest of names, types, shapes and bytes of all exported weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.export_state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _text_trains(self) -> bool:
        """Whether a gradient could be asked of the text encoder."""
        return torch.is_grad_enabled() and any(p.requires_grad for p in self._text_parameters())

    def _text_parameters(self) -> Iterator[nn.Parameter]:
        parts: list[nn.Module] = [self._text]
        while parts:
            part = parts.pop()
            yield from (p for p in part._parameters.values() if p is not None)
            children = part._modules.values()
            parts += [c for c in children if c is not None and c is not self.network.visual]

    def _remembered(self, request: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """A result of the text encoder, computed once per state of everything it depends on."""
        vision = [self.network.visual] if self._text_path == "network" else []
        state = fingerprint(self._text, without=vision) if is_pure(self) else None
        if request is None or state is None:
            return compute()
        return self._memo.get((request, state, *numerics(self.device)), compute)

    def _class_features(self, classes: ClassTexts) -> Tensor:
        tokens = self.tokenizer([*chain.from_iterable(classes.prompts)])
        lengths = _lengths(tokens)
        order = lengths.argsort(stable=True)  # texts of like length share a chunk, little padding
        parts = [
            self.encode_text(tokens[chunk, : int(lengths[chunk].max())])
            for chunk in torch.split(order, CHUNK)
        ]
        features = torch.cat(parts)[order.argsort().to(self.device)]
        counts = torch.tensor([len(texts) for texts in classes.prompts], device=self.device)
        return F.normalize(torch.segment_reduce(features, "mean", lengths=counts), dim=-1)

    def _block_paths(self, encoder: Encoder) -> list[str]:
        tower = "network.visual" if encoder == "vision" else self._text_path
        count = len(self.get_submodule(f"{tower}.transformer.resblocks"))  # type: ignore[arg-type]
        return [f"{tower}.transformer.resblocks.{layer}" for layer in range(count)]

    def _linear(self, name: str) -> nn.Linear:
        module = self.get_submodule(name)
        if not isinstance(module, nn.Linear):
            raise ValueError(f"{name} is no plain layer but holds a {type(module).__name__}")
        return module


def _lengths(tokens: Tensor) -> Tensor:
    """Tokens of each padded text, ``(N,)``: end-of-text, the last, is the largest id."""
    return tokens.argmax(dim=-1) + 1
