"""Hyper-parameters are declared once: one signature feeds all that is said and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, TypeAdapter
from torch import Tensor
from typer.testing import CliRunner

from clbench import config, registry
from clbench.cli.app import app
from clbench.core.data import Batch
from clbench.core.errors import ClbenchError
from clbench.core.hyperparameters import (
    LabelSmoothing,
    Rank,
    json_schema,
    markdown_table,
    signature_of,
)
from clbench.core.method import Method


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


class Declared(Method):
    """Has every kind of hyper-parameter."""

    name = "declared"
    paper = "https://example.org"

    def __init__(
        self,
        *,
        rank: Rank = 8,
        rho: Annotated[float, Field(gt=0, le=1, description="Share | of energy.")] = 0.95,
        mode: Annotated[Literal["a", "b"], Field(description="Way.")] = "a",
        layers: Annotated[list[int] | None, Field(description="Which; None means all.")] = None,
        heads: Annotated[int, AfterValidator(_even), Field(description="Heads.")] = 4,
        smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()
        self.seen = (self.rank, self.rho)  # valid before the constructor's own lines run

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}


WRONG: list[tuple[str, Any, str]] = [
    ("rank", 0, "rank=0: input should be greater than or equal to 1"),
    ("rank", 2.5, "rank=2.5: input should be a valid integer"),
    ("rho", 1.5, "rho=1.5: input should be less than or equal to 1"),
    ("rho", float("nan"), "rho=nan: input should be a finite number"),
    ("mode", "c", "mode='c': input should be 'a' or 'b'"),
    ("layers", ["x"], "layers=['x']: input should be a valid integer"),
    ("heads", 3, "heads=3: must be even"),
    ("smoothing", 1.0, "smoothing=1.0: input should be less than 1"),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_constructor_and_configuration_refuse_the_same(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ClbenchError) as built:
        Declared(**{key: value})
    assert str(built.value).startswith(expected)
    with pytest.raises(ClbenchError) as resolved:
        config.resolve(Declared, "mini", overrides={f"method.{key}": value})
    assert str(resolved.value).startswith(f"method.{expected}")
    assert "\n" not in str(resolved.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ClbenchError, match=r"rank=0: .*; rho=2: "):
        Declared(rank=0, rho=2)


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(TypeError, match="rnak"):
        Declared(rnak=3)  # type: ignore[call-arg]
    with pytest.raises(ClbenchError, match=r"'method.rnak': did you mean 'method.rank'"):
        config.resolve(Declared, "mini", overrides={"method.rnak": 3})


def test_values_become_attributes_in_their_type() -> None:
    method = Declared(rank=4, rho=1, layers=[0, 2])
    assert (method.rank, method.rho, method.layers, method.mode) == (4, 1.0, [0, 2], "a")
    assert isinstance(method.rho, float)
    assert method.seen == (4, 1.0)
    assert method.hyperparameters()["heads"] == 4
    assert "rank=4, rho=1.0, mode='a', layers=[0, 2]" in repr(method)
    settings, cls = config.resolve(Declared, "mini", overrides={"method.rank": 4})
    assert settings.method.params == Declared(rank=4).hyperparameters()
    assert cls is Declared


TABLE = """\
| name | type | default | meaning |
| --- | --- | --- | --- |
| `rank` | int >= 1 | `8` | Rank of the update. |
| `rho` | float > 0, <= 1 | `0.95` | Share \\| of energy. |
| `mode` | 'a' or 'b' | `'a'` | Way. |
| `layers` | list[int] or None | `None` | Which; None means all. |
| `heads` | int | `4` | Heads. |
| `smoothing` | float >= 0, < 1 | `0.2` | Share of the target spread evenly over the classes. |
"""


def test_the_table_says_name_type_bounds_default_and_meaning() -> None:
    assert markdown_table(Declared.schema()) == TABLE


def test_the_json_schema_has_the_same_bounds() -> None:
    schema = json.loads(json.dumps(json_schema(Declared.schema())))
    assert schema["additionalProperties"] is False
    assert schema["required"] == []
    assert schema["properties"]["rank"] == {
        "type": "integer",
        "minimum": 1,
        "default": 8,
        "description": "Rank of the update.",
    }
    assert schema["properties"]["mode"]["enum"] == ["a", "b"]
    assert schema["properties"]["rho"]["exclusiveMinimum"] == 0
    defaults = {name: part["default"] for name, part in schema["properties"].items()}
    assert defaults == Declared().hyperparameters()


@pytest.mark.parametrize("name", registry.method_names())
def test_every_method_has_a_schema_that_its_defaults_keep(name: str) -> None:
    cls = registry.method(name)
    schema = json_schema(cls.schema())
    assert set(schema["properties"]) == set(cls.schema())
    for key, parameter in cls.schema().items():
        TypeAdapter(parameter.annotation).validate_python(schema["properties"][key]["default"])


def test_show_prints_them(tmp_path: Path) -> None:
    outcome = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["show", f"{__name__}:Declared"])
    assert outcome.exit_code == 0, outcome.output
    lines = [" ".join(line.replace("│", " ").split()) for line in outcome.stdout.splitlines()]
    assert "rank int >= 1 8 Rank of the update." in lines
    assert "layers list[int] or None None Which; None means all." in lines
    assert any(line.startswith("smoothing float >= 0, < 1 0.2 Share of") for line in lines)


def test_one_declaration_is_enough_to_change_everything() -> None:
    """A new bound, default or meaning in the signature shows up everywhere."""

    class Changed(Declared):
        def __init__(
            self, *, rank: Annotated[int, Field(ge=3, le=5, description="Columns.")] = 4
        ) -> None:
            Method.__init__(self)

    assert markdown_table(Changed.schema()).splitlines()[2:] == [
        "| `rank` | int >= 3, <= 5 | `4` | Columns. |"
    ]
    assert json_schema(Changed.schema())["properties"]["rank"]["maximum"] == 5
    assert Changed().hyperparameters() == {"rank": 4}
    with pytest.raises(ClbenchError, match="greater than or equal to 3"):
        Changed(rank=2)
    with pytest.raises(ClbenchError, match=r"method\.rank=9: input should be less than"):
        config.resolve(Changed, "mini", overrides={"method.rank": 9})


def test_a_table_of_hyper_parameters_shows_html_instead_of_passing_it_on() -> None:
    def method(*, size: Annotated[int, Field(description="<b>`n`</b> of | it")] = 1) -> None: ...

    (row,) = markdown_table(signature_of(method)).splitlines()[2:]
    assert row == "| `size` | int | `1` | \\<b>`n`\\</b> of \\| it |"
