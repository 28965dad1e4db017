"""The commands `clbench data list`, `prepare` and `verify`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from clbench.cli import completion
from clbench.cli.command import command
from clbench.cli.options import CacheFolder
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.foreign.console import SafeConsole

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from clbench.datamodules.fetching.inventory import Splits, State

data_app = typer.Typer(
    name="data",
    help="List, download and verify data sets.",
    no_args_is_help=True,
)

Benchmark = Annotated[
    str,
    typer.Argument(
        help="mtil, xtail, cifar100, ... (or a variant of them), a data set, or all.",
        autocompletion=completion.data_sets,
    ),
]
Listed = Annotated[
    str,
    typer.Argument(
        help="mtil, xtail, cifar100, ... (or a variant of them), a data set, probes (the images "
        "and captions that probes look at), or all.",
        autocompletion=completion.listed_data,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of the data sets.", show_default="the cache folder"),
]


def data_sets(benchmark: str) -> list[str]:
    """The data sets that a benchmark is made of.

    Args:
        benchmark: ``all``, a benchmark or what its name begins with (``mtil``, ``cifar100``), or a
            data set in any case.

    Raises:
        ClbenchError: unknown name.
    """
    from clbench.datamodules.catalogue.catalogue import CATALOG, OTHERS

    by_name = {name.lower(): name for name in (*CATALOG, *OTHERS)}
    name = benchmark.lower()
    if name in by_name:
        return [by_name[name]]
    families = {
        "all": [*CATALOG, *OTHERS],
        "mtil": list(CATALOG),
        "xtail": [name for name in CATALOG if name != "CIFAR100"],
        "cifar100": ["CIFAR100"],
        "tinyimagenet": ["TinyImageNet"],
        "imagenet-r": ["ImageNet-R"],
        "cub200": ["CUB-200"],
        "domainnet": ["DomainNet"],
        "mini": [],
    }
    for family, found in families.items():
        if name == family or name.startswith(f"{family}-"):
            return found
    if name == completion.PROBES:
        raise ClbenchError(
            "what probes look at has to be put in place by hand; `clbench data list probes` says "
            "where, and a run with such a probe reads and hashes every image"
        )
    raise unknown_name("benchmark or data set", benchmark, [*families, *CATALOG, *OTHERS])


def splits_of(benchmark: str) -> Splits:
    """Whose splits of its data sets a benchmark needs."""
    return "coop" if benchmark.lower().partition("-")[0] == "xtail" else "zscl"


def data_root(root: Path | None) -> Path:
    """The folder asked for, or ``data`` in the cache folder."""
    from clbench.core.files import user_cache

    return (root or user_cache() / "data").expanduser()


@data_app.command("list", epilog="Examples: clbench data list mtil | clbench data list probes")
@command
def list_data(benchmark: Listed = "all", root: Root = None) -> None:
    """Show which data sets are present, in whose layout, and what a download would fetch."""
    from clbench.datamodules.fetching.inventory import survey
    from clbench.datamodules.probing.survey import survey_probes

    folder, states = data_root(root), []
    if benchmark.lower() != completion.PROBES:
        states = survey(data_sets(benchmark), folder, splits_of(benchmark))
    if benchmark.lower() in (completion.PROBES, "all"):
        states += survey_probes(folder)
    _show(states, folder)


@data_app.command("prepare", epilog="Example: clbench data prepare mtil --root /data")
@command
def prepare_data(benchmark: Benchmark, root: Root = None, cache: CacheFolder = None) -> None:
    """Download what is missing and take the hash of every image. The same command resumes.

    CoOp's splits, which xtail needs, cannot be downloaded: what is missing is named.
    """
    from clbench.datamodules.catalogue.catalogue import data_set
    from clbench.datamodules.fetching.inventory import hash_images, require, survey
    from clbench.datamodules.fetching.prepare import prepare
    from clbench.datamodules.pixels.data_folder import data_cache
    from clbench.datamodules.readers.coop import read_coop
    from clbench.datamodules.readers.read import read

    folder, names, problems = data_root(root), data_sets(benchmark), []
    splits = splits_of(benchmark)
    reader = read_coop if splits == "coop" else read
    for name in names:
        with _bars() as bars:
            bar = _Bars(bars)
            try:
                source = None
                if splits == "zscl" or survey([name], folder, splits)[0].status != "present":
                    source = prepare(
                        data_set(name),
                        folder,
                        progress=bar.update,
                        advance=functools.partial(bar.update, "images"),
                    )
                require([name], folder, splits)
                hash_images(
                    reader(data_set(name), folder),
                    data_cache(folder, cache),
                    functools.partial(bar.update, "hashes"),
                )
            except ClbenchError as error:
                problems.append(str(error))
                continue
        _console().print(f"{name}: {'already present' if source is None else source.title}")
    _show(survey(names, folder, splits), folder)
    if problems:
        raise ClbenchError("\n".join(problems))


@data_app.command("verify", epilog="Example: clbench data verify mtil --quick")
@command
def verify_data(
    benchmark: Benchmark,
    root: Root = None,
    cache: CacheFolder = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not open the images.")] = False,
) -> None:
    """Check counts and checksums, read and open every image; exit with 2 if anything is wrong.

    Images that do not hold what they held when they were last read are named.
    """
    from clbench.datamodules.catalogue.catalogue import data_set
    from clbench.datamodules.fetching.inventory import check_files, check_images, survey
    from clbench.datamodules.pixels.data_folder import data_cache
    from clbench.datamodules.readers.coop import read_coop
    from clbench.datamodules.readers.read import read

    folder, splits = data_root(root), splits_of(benchmark)
    states, problems = survey(data_sets(benchmark), folder, splits), []
    reader = read_coop if splits == "coop" else read
    for state in states:
        if state.status != "present":
            continue
        dataset = data_set(state.name)
        try:
            check_files(dataset, folder)
            if not quick:
                with _bars() as bars:
                    show = functools.partial(_Bars(bars).update, state.name)
                    kept = data_cache(folder, cache)
                    check_images(dataset, folder, reader(dataset, folder), show, cache=kept)
        except ClbenchError as error:
            problems.append(str(error))
    _show(states, folder)
    wanting = sum(state.status != "present" for state in states)
    if wanting:
        problems.append(f"{wanting} of {len(states)} data sets are not ready")
    if problems:
        raise ClbenchError("\n".join(problems))


def _console() -> SafeConsole:
    return SafeConsole(highlight=False, soft_wrap=True)


@contextmanager
def _bars() -> Iterator[Progress]:
    """Transient progress bars on standard error."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    console = SafeConsole(stderr=True)
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        yield bars


class _Bars:
    """One bar per name."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def update(self, name: str, done: int, total: int | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name)
        self._bars.update(self._tasks[name], completed=done, total=total)


def _show(states: list[State], folder: Path) -> None:
    """Print the table of data sets, wrapped to the width of a terminal; one line each elsewhere."""
    from clbench.datamodules.fetching import inventory

    console = _console()
    if not states:
        console.print("this benchmark is rendered and needs no data")
        return
    if not console.is_terminal:
        console.print(inventory.table(states))
        return
    table = Table(title=f"data sets in {folder}", title_justify="left")
    for column in ("data set", "state", "found", "layout", "what to do"):
        table.add_column(column, overflow="fold")
    for state in states:
        layout = state.layout.removeprefix("layout of ")
        table.add_row(state.name, state.status, state.detail, layout, state.todo)
    console.print(table, soft_wrap=False)
