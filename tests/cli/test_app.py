"""The command line as a user types it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import clbench
from clbench.cli.app import app
from tests.made_up import MakeResult


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def runs(quick_runs: Path) -> Path:
    """A folder with two finished smoke runs."""
    return quick_runs


def test_help_shows_commands_and_examples_without_loading_torch() -> None:
    heavy = "{'torch', 'pandas'} & set(sys.modules)"
    code = f"import sys, clbench.cli.app; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in ("run", "compare", "report", "published", "metrics", "list", "show"):
        assert name in invoke("--help").output
        assert "Example" in invoke(name, "--help").output


def test_lists_and_reports_are_made_without_loading_torch(tmp_path: Path) -> None:
    """Facts about methods are read off their files, and ImageNet's classes, which take timm along,
    are asked for only where its images lie."""
    result = Path(__file__).parents[1] / "data/results/schema-4.json"
    assert clbench.load_result(result).method.name == "nusa"
    shown = {
        ("list",): "mini-5shot",
        ("show", "methods/lora"): "lr: 0.0003",
        ("data", "list", "--root", str(tmp_path)): "imagenet-v2",
        ("report", str(result)): "NuSA-CL",
    }
    code = (
        "import sys, clbench.lock, clbench.report.embed; from clbench.cli.app import app; "
        f"[app(list(command), standalone_mode=False) for command in {list(shown)!r}]; "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in shown.values())


def test_the_commands_have_headings() -> None:
    text = invoke("--help").output
    for heading, command in (
        ("Train and test", "compare"),
        ("Results", "verify"),
        ("Methods, benchmarks, data", "list"),
    ):
        section = text.partition(heading)[2].partition("╭─")[0]
        assert f" {command} " in section


@pytest.fixture
def saved(tmp_path: Path, make_result: MakeResult) -> Path:
    """Two runs that were never made, as result files in a folder."""
    for method in ("lora", "nusa"):
        make_result(method).save(tmp_path / f"{method}.json")
    return tmp_path


def test_pipes_get_no_escape_sequences(saved: Path) -> None:
    show = ["show", saved / "nusa.json"]
    for arguments in (["report", saved], show, ["list"], ["published", "nusa"]):
        outcome = invoke(*arguments)
        assert outcome.exit_code == 0, outcome.output
        assert "\x1b" not in outcome.output


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color_switches_colours_off(saved: Path, no_color: bool) -> None:
    environment = {"FORCE_COLOR": "1", "NO_COLOR": "1" if no_color else "", "COLUMNS": "120"}
    terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    outcome = CliRunner().invoke(app, ["report", str(saved)], env=environment | terminal)
    coloured = re.findall(r"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|4[0-7]|38|48)[;m]", outcome.output)
    assert "NuSA-CL" in outcome.output
    assert bool(coloured) is not no_color


def test_version() -> None:
    assert invoke("--version").stdout == f"clbench {version('clbench')}\n"


def test_a_run_leaves_its_documented_files(runs: Path) -> None:
    (folder,) = (runs / "mini" / "nusa").iterdir()
    names = {p.name for p in folder.iterdir()}
    expected = {"config.yaml", "result.json", "matrix.csv", "table.md", "metrics.jsonl", "log.txt"}
    assert expected | {"checkpoints"} <= names
    result = clbench.load_result(folder)
    assert result.status == "quick"
    assert result.matrix.values.shape == (12, 11)
    assert result.data.splits.keys() >= {"arrows/train", "arrows/test"}
    assert result.provenance["packages"]["torch"]


def test_the_same_command_finds_the_run_complete(runs: Path) -> None:
    outcome = invoke("run", "--method", "nusa", "--quick", "--runs-dir", runs)
    assert outcome.exit_code == 0
    assert "already complete" in outcome.stderr
    assert "run directory:" in outcome.output
    assert "textures" in outcome.output


def test_metrics_of_the_written_matrix_equal_the_summary(runs: Path) -> None:
    (folder,) = (runs / "mini" / "nusa").iterdir()
    outcome = invoke("metrics", folder / "matrix.csv", "--json")
    assert outcome.exit_code == 0
    summary = json.loads(outcome.output)
    for key, value in clbench.load_result(folder).summary.items():
        assert summary[key] == pytest.approx(value, abs=1e-6)


def test_report_makes_the_same_tables_as_compare(runs: Path, tmp_path: Path) -> None:
    outcome = invoke("report", runs / "out" / "results", "--out", tmp_path)
    assert outcome.exit_code == 0
    for path in sorted(tmp_path.rglob("*.*")):
        assert path.read_bytes() == (runs / "out" / path.relative_to(tmp_path)).read_bytes()
    assert (tmp_path / "summary.tex").read_text().count("\\midrule")
    files = sum(path.is_file() for path in tmp_path.rglob("*"))
    last = outcome.stdout.splitlines()[-1]
    assert last == f"{files} files in {tmp_path}; begin with {tmp_path / 'summary.md'}"
    assert outcome.stdout.count(str(tmp_path)) == 2


def test_two_methods_are_compared_image_by_image(runs: Path, tmp_path: Path) -> None:
    direct = invoke("report", runs / "mini", "--compare", "nusa, zeroshot", "--out", tmp_path / "a")
    assert direct.exit_code == 0, direct.output
    assert "NuSA-CL minus Zero-shot CLIP: mini v1" in direct.output
    assert "n = 1 (seed 0)" in direct.output
    # The bits were collected with the results, so the copies give the same comparison.
    invoke(
        "report", runs / "out" / "results", "--compare", "nusa,zeroshot", "--out", tmp_path / "b"
    )
    for kind in ("md", "csv", "tex", "html"):
        name = f"compare-nusa-zeroshot.{kind}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_published_numbers_are_shown(runs: Path) -> None:
    outcome = invoke("report", runs / "mini", "--published")
    assert outcome.exit_code == 0, outcome.output
    assert "No numbers of these methods on this benchmark are known" in outcome.output
    listing = invoke("published", "nusa").output
    for text in ("68.6", "75.1", "82.8", "second-hand", "README.md"):
        assert text in listing


def test_list_and_show() -> None:
    listing = invoke("list").output
    for name in ("nusa", "gnsp", "mini-5shot", "methods/lora"):
        assert name in listing
    shown = invoke("show", "nusa").output
    for text in ("arxiv.org", "rank", "128", "Largest number of directions", "rho"):
        assert text in shown
    assert "reference-images" in invoke("show", "gnsp").output
    assert "shots" in invoke("show", "mini-5shot").output
    assert "lr: 0.0003" in invoke("show", "methods/nusa").output


def test_contact_sheet_has_a_row_per_task(tmp_path: Path) -> None:
    outcome = invoke("show", "mini", "--images", tmp_path / "sheet.png")
    assert outcome.exit_code == 0, outcome.output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (20 * 64, 11 * 64)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--method", "nusaa"], "did you mean 'nusa'"),
        (["run", "--benchmark", "minni"], "did you mean 'mini'"),
        (["run", "--set", "method.rnak=3"], "did you mean 'method.rank'"),
        (["run", "--set", "method.rank=x"], "method.rank='x'"),
        (["run", "--set", "method.rank"], "expected key=value"),
        (["run", "--set", "backbone.weights=/no/such.safetensors"], "/no/such.safetensors"),
        (["run", "--config", "/no/such.yaml"], "/no/such.yaml"),
        (["run", "--runs-dir", "{tmp}/file/runs"], "--runs-dir"),
        (["compare", "--methods", "nusa,loar"], "did you mean 'lora'"),
        (["compare", "--seeds", "0,x"], "--seeds"),
        (["report", "{tmp}/nothing"], "does not exist"),
        (["report", "{tmp}/empty"], "no results in"),
        (["report", "{runs}", "--compare", "nusa"], "expected two methods"),
        (["report", "{runs}", "--compare", "nusa,zero"], "did you mean 'zeroshot'"),
        (["published", "NuSA"], "did you mean 'NuSA-CL'"),
        (["metrics", "{tmp}/missing.csv"], "missing.csv"),
        (["metrics", "{tmp}/file"], "empty"),
        (["metrics", "{tmp}/words.csv"], "words.csv"),
        (["list", "metods"], "did you mean 'methods'"),
        (["show", "nusaa"], "did you mean 'nusa'"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, runs: Path
) -> None:
    write(tmp_path / "file", "")
    write(tmp_path / "words.csv", "task,a\na,lots\n")
    (tmp_path / "empty").mkdir()
    given = [
        a.replace("{tmp}", str(tmp_path)).replace("{runs}", str(runs / "mini")) for a in arguments
    ]
    if "--runs-dir" not in given and given[0] in ("run", "compare"):
        given += ["--runs-dir", str(tmp_path / "runs")]
    outcome = invoke(*given)
    assert outcome.exit_code == 2, outcome.output
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert "Traceback" not in outcome.output


def test_a_method_defined_in_a_notebook_runs(runs: Path, tmp_path: Path) -> None:
    from clbench.methods.zeroshot import ZeroShot

    class Mine(clbench.Method):
        """Scores like zero-shot."""

        name = "mine"
        paper = "https://example.org"

        def __init__(self, *, gain: float = 2.0) -> None:
            super().__init__()
            self.gain = gain

        loss = ZeroShot.loss

    (tmp_path / "mini").mkdir()
    for row in runs.glob("mini/zero-shot-*.json"):  # the same as here
        shutil.copy(row, tmp_path / "mini")
    result = clbench.run(
        Mine, "mini", runs_dir=tmp_path, quick=True, quiet=True, settings={"method.gain": 3}
    )
    assert result.method.params == {"gain": 3.0}
    assert result.matrix.values[11].tolist() == result.matrix.values[0].tolist()
