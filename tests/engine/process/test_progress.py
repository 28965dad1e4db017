from __future__ import annotations

import io

from rich.console import Console

from clbench.engine.process.progress import (
    PlainReporter,
    QuietReporter,
    Reporter,
    RichReporter,
    make_reporter,
)


def drive(reporter: Reporter) -> None:
    """The events of a run of one task."""
    reporter.begin("toy run", ["digits", "flags"], 0)
    reporter.testing(10)
    reporter.tested(10)
    reporter.row(0, {0: 0.5, 1: 0.25})
    reporter.training(0, 2)
    for _ in range(2):
        reporter.stepped()
    reporter.loss(1.25)
    reporter.row(1, {0: 1.0, 1: 0.25})
    reporter.note("a [note]")
    reporter.end()


def test_plain_lines_show_every_row() -> None:
    stream = io.StringIO()
    drive(PlainReporter(Console(file=stream, width=40)))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "toy run"
    assert lines[1].startswith("0/2 zero-shot: mean of all tasks 37.5 %  [")
    assert lines[2].startswith("1/2 digits: 100.0 %, mean of all tasks 62.5 %, loss 1.250  [")
    assert lines[3] == "a [note]"


def test_bars_end_and_leave_the_rows() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    drive(RichReporter(console))
    assert "1/2 digits: 100.0 %" in stream.getvalue()


def test_quiet_is_silent_and_the_kind_follows_the_console() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True)
    pipe = Console(file=io.StringIO())
    assert isinstance(make_reporter(terminal, quiet=True), QuietReporter)
    assert isinstance(make_reporter(terminal), RichReporter)
    assert type(make_reporter(pipe)) is PlainReporter
    quiet = make_reporter(pipe, quiet=True)
    drive(quiet)
    assert pipe.file.getvalue() == ""  # type: ignore[attr-defined]


def test_going_on_is_said() -> None:
    stream = io.StringIO()
    PlainReporter(Console(file=stream)).begin("toy run", ["a", "b"], 1)
    assert stream.getvalue() == "toy run: resuming after task 1/2\n"
