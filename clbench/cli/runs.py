"""Commands on finished runs: `clbench verify`, `clbench rerun`, `clbench env`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clbench.cli.command import command, say
from clbench.cli.options import Quiet, Run, Runs
from clbench.core.errors import ClbenchError

TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Import a method that the result names by its module or file. Read that code first.",
    ),
]


@command
def verify(
    runs: Runs,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Also test the final checkpoints anew.")
    ] = False,
    trust_code: TrustCode = False,
    key: Annotated[
        Path | None, typer.Option(help="SSH public key: the runs must be signed with it.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(help="SSH private key: sign the runs that are sound.")
    ] = None,
) -> None:
    """Check that the files of runs agree with each other, and are what was written."""
    from clbench import api
    from clbench.core.results import signature
    from clbench.verify import verify as check

    failed = 0
    for file in api.result_files(runs):
        findings = check(file, evaluate=evaluate, trust_code=trust_code, key=key)
        say(str(file.parent if file.name == "result.json" else file))
        for finding in findings:
            say(f"  {'ok   ' if finding.sound else 'WRONG'} {finding.what}: {finding.text}")
        sound = all(finding.sound for finding in findings)
        failed += not sound
        if sound and sign is not None:
            signature.sign(file.parent, sign)
            say(f"  signed with {sign}")
    if failed:
        raise ClbenchError(f"{failed} of the runs cannot be trusted: see the lines marked WRONG")


@command
def rerun(
    run: Run,
    root: Annotated[
        str | None,
        typer.Option(help="Folder of the data sets.", show_default="that of the run"),
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where the repetition is made.")] = Path("reruns"),
    trust_code: TrustCode = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a run with the configuration in its result, and compare the numbers."""
    from clbench import api

    result, differences = api.rerun(
        run, runs_dir=runs_dir, data_root=root, trust_code=trust_code, quiet=quiet
    )
    say(f"{result.method.name} on {result.benchmark.name}, seed {result.seed}, repeated")
    for line in differences or ["every accuracy and every loss is the same, bit for bit"]:
        say(line)
    path = api.run_directory(result, runs_dir)
    say(f"run directory: {path}")


@command
def env(run: Run) -> None:
    """Print the exact versions of a run's packages as a constraints file for pip."""
    from clbench.cli.constraints import constraints
    from clbench.core.results.result import RunResult

    typer.echo(constraints(RunResult.load(run)), nl=False)
