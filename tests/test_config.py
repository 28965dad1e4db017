from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from torch import Tensor

from clbench import config, registry
from clbench.core.data import Batch
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.settings import RunSettings
from clbench.methods.finetune import Finetune
from clbench.methods.nusa import NuSA


class Custom(Method):
    """A method that has no recipe."""

    name = "custom"
    paper = "https://example.org"

    def __init__(self, *, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}


def resolve(**arguments: object) -> RunSettings:
    return config.resolve(**arguments)[0]  # type: ignore[arg-type]


def test_defaults_are_nusa_on_mini() -> None:
    settings = resolve()
    assert (settings.method.name, settings.benchmark.name, settings.seed) == ("nusa", "mini", 0)


def test_precedence_benchmark_method_file_command_line(tmp_path: Path) -> None:
    benchmark, method = registry.benchmark("mini"), registry.method_recipe(Finetune)
    mine = resolve(method="finetune")
    assert mine.train.batch_size == benchmark.train["batch_size"]
    assert mine.train.lr == method.benchmarks["mini"]["train"]["lr"]
    file = tmp_path / "my.yaml"
    file.write_text("train: {lr: 0.5, steps: 7}\nseed: 4\nprecision: bf16\n")
    from_file = resolve(method="finetune", config=file)
    assert (from_file.train.lr, from_file.train.steps, from_file.seed) == (0.5, 7, 4)
    both = resolve(method="finetune", config=file, overrides={"train.lr": 0.25})
    assert (both.train.lr, both.train.steps, both.precision) == (0.25, 7, "bf16")


def test_variants_inherit_the_family_section_of_method_recipes() -> None:
    recipe = registry.method_recipe(NuSA)
    five = resolve(method="nusa", benchmark="mini-5shot")
    assert five.method.params["rank"] == recipe.benchmarks["mini"]["params"]["rank"]
    assert five.train.steps == recipe.benchmarks["mini-5shot"]["train"]["steps"]
    assert five.benchmark.options["shots"] == 5


def test_the_file_may_name_method_and_benchmark(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("method: {name: lora, rank: 3}\nbenchmark: mini-5shot\n")
    settings = resolve(config=file)
    assert (settings.method.name, settings.method.params["rank"]) == ("lora", 3)
    assert settings.benchmark.name == "mini-5shot"
    assert resolve(config=file, benchmark="mini").benchmark.name == "mini"


def test_a_saved_configuration_describes_the_run_completely() -> None:
    settings = resolve(method="gnsp", overrides={"method.rho": 0.2})
    again = RunSettings.model_validate(settings.model_dump(mode="json"))
    assert again == settings
    assert again.fingerprint() == settings.fingerprint()


def test_a_class_can_be_given_without_recipe_or_registration() -> None:
    settings, cls = config.resolve(Custom, overrides={"method.strength": 2})
    assert cls is Custom
    assert settings.method.params == {"strength": 2.0}
    assert settings.train.steps == registry.benchmark("mini").train["steps"]


def test_a_class_can_be_named_by_its_path() -> None:
    settings, cls = config.resolve("clbench.methods.lora:LoRA")
    assert cls.name == "lora"
    assert settings.method.name == "clbench.methods.lora:LoRA"


def test_quick_cuts_the_steps_and_changes_the_folder() -> None:
    quick, full = resolve(quick=True), resolve()
    assert quick.train.steps == config.QUICK_STEPS
    assert quick.quick
    assert quick.fingerprint() != full.fingerprint()


def test_values_are_converted_to_the_declared_types() -> None:
    overrides = config.parse_assignments(
        ["method.alpha=1", "method.layers=[0, 2]", "train.lr=1e-3", "method.space=top"]
    )
    settings = resolve(overrides=overrides)
    assert settings.method.params["alpha"] == 1.0
    assert settings.method.params["layers"] == [0, 2]
    assert (settings.train.lr, settings.method.params["space"]) == (1e-3, "top")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "nusaa"}, "unknown method 'nusaa': did you mean 'nusa'"),
        ({"benchmark": "minni"}, "unknown benchmark 'minni': did you mean 'mini'"),
        ({"overrides": {"method.rnak": 1}}, "'method.rnak': did you mean 'method.rank'"),
        ({"overrides": {"train.stepz": 1}}, "'train.stepz': did you mean 'train.steps'"),
        ({"overrides": {"benchmark.shot": 1}}, "'benchmark.shot': did you mean 'benchmark.shots'"),
        ({"overrides": {"sed": 1}}, "unknown key 'sed': did you mean 'seed'"),
        ({"overrides": {"method.rank": "many"}}, "method.rank='many': input should be a valid int"),
        ({"overrides": {"method.rank": 0}}, "method.rank=0: input should be greater"),
        ({"overrides": {"method.space": "tial"}}, "method.space='tial': input should be 'tail'"),
        ({"overrides": {"train.lr": -1}}, "train.lr=-1: input should be greater than or equal"),
        ({"overrides": {"train.lr": float("nan")}}, "train.lr=nan: input should be a finite"),
        ({"overrides": {"train.steps": {"arrows": 3}}}, "needs the entry 'default'"),
        ({"overrides": {"seed": -1}}, "seed=-1"),
        ({"overrides": {"train.betas": [0.9, 1]}}, "train.betas=1: input should be less than 1"),
        ({"overrides": {"train.betas": [-0.1, 0.9]}}, "train.betas=-0.1: input should be greater"),
        ({"overrides": {"train.steps": 10**30}}, "train.steps=1000000000000000000000000000000: "),
        ({"overrides": {"train.clip_grad_norm": float("inf")}}, "train.clip_grad_norm=inf: "),
        ({"overrides": {"devices": 10**6}}, "devices=1000000: input should be less"),
        ({"overrides": {"precision": "fp8"}}, "precision='fp8'"),
        ({"overrides": {"train": 3}}, "'train' must be a mapping"),
        ({"method": "no.module:Thing"}, "method 'no.module:Thing' cannot be imported"),
        ({"method": "pathlib:Path"}, "not a subclass"),
    ],
)
def test_mistakes_are_named_with_the_nearest_valid_name(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ClbenchError) as error:
        resolve(**arguments)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ClbenchError) as error:
        resolve(overrides={"method.rnak": 1, "train.lr": "fast", "benchmark.shots": "x", "sed": 1})
    assert len(str(error.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [1", "not valid YAML"), ("- 1", "must be a mapping"), ("train: 3", "must be a mapping")],
)
def test_damaged_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(ClbenchError, match=message):
        resolve(config=file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match=r"cannot read --config .*no\.yaml"):
        resolve(config=tmp_path / "no.yaml")


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ClbenchError, match="not valid YAML"):
        resolve(config=file)


@pytest.mark.parametrize("text", ["rank", "=3", "a=[1"])
def test_assignments_need_key_and_value(text: str) -> None:
    with pytest.raises(ClbenchError, match="--set"):
        config.parse_assignments([text])


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(ClbenchError, match="cannot hold keys"):
        config.nest({"train": 3, "train.lr": 1})


@pytest.mark.parametrize("key", ["method", "benchmark"])
def test_a_name_that_is_no_name_is_refused(key: str) -> None:
    with pytest.raises(ClbenchError, match=rf"{key}.name must be a name, got \{{'seconds': 1\}}"):
        resolve(overrides={f"{key}.name.seconds": 1})
