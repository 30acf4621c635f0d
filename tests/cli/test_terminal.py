"""Every command that prints tables, on terminals of 80 and 120 characters: no line is longer than the terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from harness.cli import main
from harness.cli.terminal import Screen, show_tables, show_text
from harness.store.points import PointStore
from harness.tables import Measured, Range, Table

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A pseudo-terminal of some size whose other end is read until it is closed."""

    def __init__(self, width: int, height: int = 40) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.parts: list[bytes] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self.master, 65536)
            except OSError:  # the other end is closed
                return
            self.parts.append(part)

    def close(self) -> str:
        self.stream.close()
        self.reader.join()
        os.close(self.master)
        return b"".join(self.parts).decode().replace("\r\n", "\n")


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int, *arguments: object, height: int = 40) -> str:
    """Run a command with standard output on a terminal; return what it printed there."""
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal(width, height)
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", terminal.stream)
        errors = io.StringIO()
        patched.setattr("sys.stderr", errors)
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code
        finally:
            printed = terminal.close()
    needs_attention = arguments[0] == "doctor" and code == 1
    assert code in (0, None) or needs_attention, errors.getvalue()
    return printed


def lines_of(printed: str) -> list[str]:
    return ESCAPES.sub("", printed).split("\n")


def too_long(printed: str, width: int) -> list[str]:
    return [line for line in lines_of(printed) if cell_len(line.rstrip()) > width]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, nano_store: PointStore) -> Path:
    """Return fits of a law, saved."""
    path = tmp_path_factory.mktemp("fits") / "fits.json"
    with pytest.raises(SystemExit):
        main(
            ["fit", str(nano_store.path), "--law", "power", "--task", "nano_text", "--bootstrap", "20", "-o", str(path)]
        )
    return path


QUICK = ["--bootstrap", "20"]
ONE = ["--where", "task == 'nano_birthplace'"]
COMMANDS = {
    "compare": ["compare", "STORE", "--law", "sigmoid", *ONE],
    "compare predictions": ["compare", "STORE", "--law", "line", *ONE, "--table", "predictions"],
    "compare wide": ["compare", "STORE", "--law", "line", *ONE, "--wide"],
    "fit": ["fit", "STORE", "--law", "sigmoid", "--task", "nano_addition", "--pool", "--hold-out", "largest", *QUICK],
    "back-test": ["fit", "TABLE", "--law", "line,last", "--value", "mmlu", "--back-test", *QUICK],
    "predict": ["predict", "FITS", "--params", "1e7", "--tokens", "1e9"],
    "forecast": ["forecast", "STORE", "--task", "nano_birthplace", "--at", "largest"],
    "decompose": ["decompose", "STORE", "--task", "nano_addition", *QUICK],
    "trends": ["trends", "STORE", "--task", "nano_text", *QUICK],
    "decide": ["decide", "STORE", "--task", "nano_addition", *QUICK],
    "capabilities": ["capabilities", "TABLE", "--benchmarks", "mmlu,arc,sums", "--reference", "f0"],
    "subsets": ["subsets", "STORE", "--task", "nano_addition", "--n", "20"],
    "diff": ["diff", "STORE", "STORE", "--task", "nano_addition", "--where", "family == 'aster'"],
    "import": ["import", "TABLE", "-o", "NEW"],
    "rank": ["rank", "TABLE", "--at", "flops=1e21", "--metric", "mmlu", "--law", "line", *QUICK],
    "versus": ["versus", "STORE", "aster:w32l2", "birch:w32l2"],
    "predictability": ["predictability", "STORE", "--task", "nano_birthplace", "--law", "line", *QUICK],
    "check": ["check", "STORE"],
    "doctor": ["doctor"],
    "laws": ["laws"],
    "plugins": ["plugins"],
    "eval --dry-run": ["eval", "aster", "-t", "nano_addition,nano_text", "--limit", "5", "-o", "NEW", "--dry-run"],
    **{
        f"ls {kind}": ["ls", kind] for kind in ("families", "tasks", "laws", "metrics", "checkers", "engines", "panels")
    },
}


def test_every_command_that_prints_tables_is_tried():
    """A new command is added here, or to those that print something else."""
    others = {"browse", "choose", "completion", "docs", "estimate", "eval", "example", "export", "new", "plot"}
    others |= {"report", "show", "sink"}  # sink is of a plugin of the tests
    tried = {arguments[0] for arguments in COMMANDS.values()}
    assert set(main.list_commands(main.make_context("harness", ["ls", "laws"]))) <= tried | others


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of six families of four models and three benchmarks."""
    path = tmp_path_factory.mktemp("table") / "models.csv"
    rows = [
        f"f{f}-{i},f{f},{10 ** (8 + i)},{2 * 10 ** (9 + i)},{1.2 * 10 ** (18 + 2 * i):.3g},"
        f"{0.2 + 0.1 * i + 0.01 * f},{0.3 + 0.1 * i},{0.1 + 0.15 * i - 0.01 * f}"
        for f in range(6)
        for i in range(4)
    ]
    path.write_text("\n".join(["model,family,params,tokens,flops,mmlu,arc,sums", *rows]) + "\n")
    return path


SLOW = {
    "doctor",
    "compare predictions",
    "compare wide",
    "fit",
    "back-test",
    "decide",
    "rank",
    "versus",
    "predictability",
    "subsets",
}
MARKED = [pytest.param(name, marks=pytest.mark.soak) if name in SLOW else name for name in COMMANDS]


@pytest.mark.parametrize("name", MARKED)
def test_no_line_is_longer_than_the_terminal(
    name: str, nano_store: PointStore, saved: Path, table: Path, tmp_path: Path, monkeypatch
):
    """A command runs on a terminal of 80 characters; what it printed there is printed on one of 120 as well."""
    places = {"STORE": nano_store.path, "FITS": saved, "NEW": tmp_path / "new", "TABLE": table}
    calls: list[tuple[object, ...]] = []
    for show in (show_tables, show_text):
        monkeypatch.setattr(
            f"harness.cli.terminal.{show.__name__}",
            lambda what, at, show=show, **options: (calls.append((show, what, at, options)), show(what, at, **options)),
        )
    printed = on_terminal(monkeypatch, 80, *(places.get(a, a) for a in COMMANDS[name]))
    assert calls, "nothing was printed as on a terminal"
    assert len(lines_of(printed)) > 3
    assert "| --" not in printed  # no Markdown
    exempt = str(nano_store.path)
    whole = "--wide" in COMMANDS[name]
    for width, lines in ((80, printed), (120, again(monkeypatch, calls, 120))):
        assert whole or not [line for line in too_long(lines, width) if exempt not in line]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("asked", [[], ["--sort", "flips"], ["--doc", "1"], ["--doc", "1", "--all-steps"]])
def test_documents_are_browsed_within_the_terminal(nano_store: PointStore, monkeypatch, width: int, asked: list[str]):
    printed = on_terminal(monkeypatch, width, "browse", nano_store.path, "--task", "nano_saying", *asked)
    assert len(lines_of(printed)) > 5
    assert not too_long(printed, width)


def again(monkeypatch: pytest.MonkeyPatch, calls: list, width: int) -> str:
    """Print what a command printed on a terminal of another width."""
    terminal = Terminal(width)
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", terminal.stream)
        try:
            for show, what, at, options in calls:
                show(what, replace(at, width=width), **options)
        finally:
            printed = terminal.close()
    return printed


def shown(monkeypatch: pytest.MonkeyPatch, table: Table, width: int, height: int = 40, **options: bool) -> str:
    call = (show_tables, [table], Screen(width, height, options.pop("whole", False)), options)
    return "\n".join(lines_of(again(monkeypatch, [call], width)))


WIDE = Table(
    "t",
    "A table",
    ("task", "about", "value", "range", "n"),
    tuple((f"task_{i}", "some words to wrap", Measured(0.5, 0.01), Range(0.5, 0.4, 0.6), i) for i in range(30)),
    tuple(f"note {i}" for i in range(9)),
    best=((0, 2),),
    optional=("n",),
)  # fmt: skip


def test_what_a_narrow_terminal_leaves_out_is_said(monkeypatch):
    printed = shown(monkeypatch, WIDE, 50)
    assert "Columns left out because the terminal is 50" in printed
    assert "4 more notes" in printed
    assert "of 30 rows" in printed
    everything = shown(monkeypatch, WIDE, 50, whole=True)
    assert "left out" not in everything
    assert "task_29" in everything
    assert "note 8" in everything


def test_columns_that_do_not_fit_continue_below_where_there_is_room(monkeypatch):
    few = replace(WIDE, rows=WIDE.rows[:3], notes=())
    printed = shown(monkeypatch, few, 40)
    assert printed.count("task_0") == 2  # two blocks, each with the name of the row
    assert "0.400, 0.600" in printed
    assert "left out" in printed  # n, which is optional


def test_the_best_is_bold_and_signs_are_explained(monkeypatch):
    rows = (("a", Measured(0.5, float("nan")), None), ("b", Measured(0.25, 0.01), 3.0))
    raw = again(
        monkeypatch,
        [(show_tables, [replace(WIDE, columns=("x", "y", "z"), rows=rows, best=((0, 1),))], Screen(80, 40), {})],
        80,
    )
    assert re.search(r"\x1b\[1;32m *0.5 ± \?", raw)
    plain = "\n".join(lines_of(raw))
    assert "· -: no value." in plain
    assert "· ?: the error or interval is unknown." in plain
    assert re.search(r"^b +0.250 ± 0.010 +3$", plain, re.MULTILINE)  # numbers end where their column ends


def test_escapes_in_a_cell_are_shown_and_not_run(monkeypatch):
    table = Table("t", "T", ("doc", "n"), (("\x1b[31mred\x07[bold]\u202e", 1),))
    raw = again(monkeypatch, [(show_tables, [table], Screen(80, 40), {})], 80)
    assert "\\x1b[31mred\\x07[bold]\\u202e" in raw


def test_piped_tables_are_markdown(nano_store: PointStore, capsys):
    with pytest.raises(SystemExit):
        main(["trends", str(nano_store.path), "--task", "nano_text", *QUICK])
    printed = capsys.readouterr().out
    assert printed.startswith("## Shape of scores over scale\n\n| task ")
    assert "\n## " in printed[2:]  # all tables
    assert "\x1b" not in printed
