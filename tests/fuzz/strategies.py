"""What fuzzing draws from: damage to bytes, trees of JSON values, changes to a leaf of a tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

Property = Callable[..., None]


def checked(examples: int, strategy: st.SearchStrategy[Any]) -> Callable[[Property], Property]:
    """A property over a strategy; deterministic, so that a failure can be repeated."""
    return lambda test: settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # the smallest failing input is not worth minutes
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(test))


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Flipped bits, cuts, insertions and repetitions at random offsets."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "zero"]))
    where = draw(st.floats(0, 1, exclude_max=True))
    bit = draw(st.integers(0, 7))
    extra = draw(st.binary(min_size=1, max_size=20))

    def apply(content: bytes) -> bytes:
        if not content:
            return content
        at = int(where * len(content))
        if kind == "flip":
            return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]
        if kind == "cut":
            return content[:at]
        if kind == "insert":
            return content[:at] + extra + content[at:]
        if kind == "repeat":
            return content[:at] + content[at // 2 :]
        return content[:at] + bytes(len(content) - at)

    return apply


NAMES = """train method benchmark backbone evaluation checkpoint_every seed precision device steps
lr batch_size rank name weights model betas warmup logger workers default seconds"""
KEYS = st.sampled_from(NAMES.split())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["mini", "nusa", "lora", "1e-3", "../..", "\x1b[2J", "a:b", "pkg.mod:Cls"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(KEYS, SCALARS), inner, max_size=4)
    ),
    max_leaves=12,
)
NUMBERS = st.one_of(
    st.integers(-3, 100),
    st.sampled_from([0, -1, 2**31, 2**63, 10**18, 10**400, 0.5, -0.5, 1e308, 1e-320]),
    st.floats(),
)
"""Numbers at which sizes and shares go wrong."""
VALUES = st.one_of(NUMBERS, TREES, st.lists(NUMBERS, max_size=4))


def changed_value(tree: Any, pick: int, value: Any) -> Any:
    """The tree with one of its leaves replaced."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            if isinstance(child, dict | list) and child:
                visit(child)
            else:
                places.append((node, key))

    visit(tree)
    node, key = places[pick % len(places)]
    node[key] = value
    return tree
