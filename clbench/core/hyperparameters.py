"""Hyper-parameters: declared once, in the signature of a method's constructor.

    def __init__(self, *, rank: Annotated[int, Field(ge=1, description="Rank.")] = 8) -> None:
        super().__init__()  # self.rank is there, and valid

Type, bounds, default and meaning are read from there: to validate values, to print them with
`clbench show`, to write the tables in ``docs/methods`` and to describe them as a JSON schema.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from clbench.core.errors import ClbenchError
from clbench.core.foreign.names import escape_html, printable

LabelSmoothing = Annotated[
    float, Field(ge=0, lt=1, description="Share of the target spread evenly over the classes.")
]
Dropout = Annotated[
    float, Field(ge=0, lt=1, description="Share of the update's inputs dropped in training.")
]
Rank = Annotated[int, Field(ge=1, description="Rank of the update.")]
Bottleneck = Annotated[int, Field(ge=1, description="Hidden units of an adapter.")]
HiddenDropout = Annotated[
    float, Field(ge=0, lt=1, description="Share of an adapter's hidden units dropped in training.")
]
Alpha = Annotated[float, Field(gt=0, description="Numerator of the update's scale.")]
DistillationWeight = Annotated[float, Field(ge=0, description="Weight of the distillation.")]
Temperature = Annotated[float, Field(gt=0, description="Of the distillation.")]
ReferenceBatchSize = Annotated[int, Field(ge=1, description="Reference images per step.")]
SharedTeacher = Annotated[
    bool,
    Field(
        description="Let teacher and model share their weights, as the release does in "
        "class-incremental runs, so that nothing is distilled."
    ),
]


def signature_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a function: name to `inspect.Parameter`, annotations evaluated."""
    parameters = inspect.signature(function, eval_str=True).parameters
    return {
        name: p
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name != "self"
    }


def validated(
    section: str, schema: Mapping[str, inspect.Parameter], values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The given values and the defaults of all others, as their types have them.

    Args:
        section: put before names in messages, e.g. ``method``; empty for none.
        schema: see `signature_of`.
        values: by name; names that the schema lacks are left out.

    Returns:
        The values that are valid, and a line for every one that is not.
    """
    checked: dict[str, Any] = {}
    problems: list[str] = []
    prefix = f"{section}." if section else ""
    for name, parameter in schema.items():
        if name not in values and parameter.default is parameter.empty:
            problems.append(f"{prefix}{name} is required")
            continue
        value = values.get(name, parameter.default)
        try:
            checked[name] = _adapter(parameter).validate_python(value)
        except ValidationError as error:
            reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            problems.append(f"{prefix}{name}={value!r}: {reason[:1].lower()}{reason[1:]}")
    return checked, problems


def require_valid(
    schema: Mapping[str, inspect.Parameter], values: Mapping[str, Any]
) -> dict[str, Any]:
    """The values as their types have them.

    Raises:
        ClbenchError: one of them breaks a bound or has another type; all are named.
    """
    checked, problems = validated("", schema, values)
    if problems:
        raise ClbenchError("; ".join(problems))
    return checked


def type_text(parameter: inspect.Parameter) -> str:
    """The type of a parameter as people write it, with its bounds.

    >>> Rank = Annotated[int, Field(ge=1)]
    >>> def f(*, rank: Rank = 8, caps: list[Rank] | None = None, by: typing.Literal[2, "a"]): ...
    >>> [type_text(p) for p in signature_of(f).values()]
    ['int >= 1', 'list[int >= 1] or None', "2 or 'a'"]
    """
    return _text(parameter.annotation)


def limits(parameter: inspect.Parameter) -> tuple[float, float]:
    """The bounds between which a number must lie, infinite where there are none.

    >>> def f(*, share: Annotated[float, Field(ge=0, le=1)] | None = None): ...
    >>> limits(signature_of(f)["share"])
    (0.0, 1.0)
    """
    base, extras = _split(parameter.annotation)
    for part in typing.get_args(base) if _is_union(base) else ():
        extras += _split(part)[1]
    found = {"ge": -math.inf, "gt": -math.inf, "le": math.inf, "lt": math.inf}
    for constraint in _constraints(extras):
        for name in found:
            if (bound := getattr(constraint, name, None)) is not None:
                found[name] = float(bound)
    return max(found["ge"], found["gt"]), min(found["le"], found["lt"])


def meaning(parameter: inspect.Parameter) -> str:
    """The line of text that its annotation carries; empty if it has none."""
    _, extras = _split(parameter.annotation)
    texts = [e.description for e in extras if isinstance(e, FieldInfo) and e.description]
    return texts[-1] if texts else ""


def markdown_table(schema: Mapping[str, inspect.Parameter]) -> str:
    """The hyper-parameters as a Markdown table, for a method's page."""
    if not schema:
        return "This method has no hyper-parameters.\n"
    rows = [("name", "type", "default", "meaning"), ("---",) * 4]
    rows += [
        (
            _code(name),
            escape_html(type_text(p)),
            "required" if p.default is p.empty else _code(repr(p.default)),
            escape_html(meaning(p)),
        )
        for name, p in schema.items()
    ]
    lines = (" | ".join(row) for row in rows)
    return "".join(f"| {line} |\n" for line in lines)


def _code(text: str) -> str:
    """A text as code in a Markdown table; a longer fence holds back quotes inside."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{printable(text)}{fence}".replace("|", "\\|")


def json_schema(schema: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The hyper-parameters as a JSON schema object."""
    required = [name for name, p in schema.items() if p.default is p.empty]
    properties = {
        name: _adapter(p).json_schema() | ({} if name in required else {"default": p.default})
        for name, p in schema.items()
    }
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _adapter(parameter: inspect.Parameter) -> TypeAdapter[Any]:
    """Validates values; NaN and infinity are none, since no result file could hold them."""
    return TypeAdapter(parameter.annotation, config=ConfigDict(allow_inf_nan=False))


def _split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type and what `Annotated` says about it."""
    if typing.get_origin(annotation) is Annotated:
        base, *extras = typing.get_args(annotation)
        return base, tuple(extras)
    return annotation, ()


def _text(annotation: Any) -> str:
    base, extras = _split(annotation)
    origin, inner = typing.get_origin(base), typing.get_args(base)
    if origin is typing.Literal:
        return " or ".join(repr(value) for value in inner)
    if _is_union(base):
        kind = " or ".join(map(_text, inner))
    elif isinstance(origin, type) and inner:
        kind = f"{origin.__name__}[{', '.join(map(_text, inner))}]"
    else:
        kind = {type(None): "None", ...: "..."}.get(base) or inspect.formatannotation(base)
    return " ".join([kind.replace("typing.", ""), *_bounds(extras)])


def _bounds(extras: Iterable[Any]) -> list[str]:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}"
        for m in _constraints(extras)
        for name, sign in signs.items()
        if (bound := getattr(m, name, None)) is not None
    ]
    return [", ".join(found)] if found else []


def _constraints(extras: Iterable[Any]) -> list[Any]:
    return [m for e in extras for m in (e.metadata if isinstance(e, FieldInfo) else [e])]


def _is_union(base: Any) -> bool:
    return typing.get_origin(base) in (typing.Union, types.UnionType)
