"""The command group: loads plugins, registers all commands, and turns errors into one line and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import click
from click.exceptions import Abort, Exit

from harness.cli.browse import browse
from harness.cli.comparisons import compare, diff
from harness.cli.evaluation import check, evaluate
from harness.cli.figures import plot, report
from harness.cli.fits import fit, predict
from harness.cli.help_commands import completion, docs, doctor
from harness.cli.listings import ls, plugins, show
from harness.cli.new import new
from harness.cli.output import INTERRUPTED, answering, diverted, say
from harness.errors import HarnessError, PluginError, UsageError
from harness.host import PluginHost, distribution, load_plugins
from harness.host.origins import PLUGIN_ERRORS, describe, is_interrupt, origin_of

WITHOUT_PLUGINS = {"plugins", "doctor", "docs", "completion", "new"}  # these work if a plugin does not load


@contextmanager
def _interruptible() -> Iterator[None]:
    """After Ctrl-C, exit with the status that shells use."""
    try:
        yield
    except KeyboardInterrupt as error:
        say("harness: interrupted")
        raise Exit(INTERRUPTED) from error


class Cli(click.Group):
    """The group of all commands, including those of plugins; a HarnessError becomes one line and an exit status."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]  # click's own has one more overload
        """Run a command; exit with 1 for a HarnessError and with 2 for a usage error."""
        args = list(sys.argv[1:] if args is None else args)
        built_in = dict(self.commands)
        try:
            return super().main(args, **extra)
        except HarnessError as error:
            if "--traceback" in args:
                raise
            say(f"harness: {error}")
            sys.exit(2 if isinstance(error, UsageError) else 1)
        except OSError as error:
            if "--traceback" in args:
                raise
            say(f"harness: {error.filename or 'a file'}: {error.strerror or error}")
            sys.exit(1)
        finally:
            self.commands = built_in  # commands of plugins belong to the run that loaded them

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the group's arguments; exit with status 130 after Ctrl-C."""
        with _interruptible():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; an error or exit of a plugin's code becomes one line that names plugin and object."""
        with _interruptible():
            try:
                return super().invoke(ctx)
            except (HarnessError, click.ClickException, Exit, Abort, BrokenPipeError):
                raise
            except PLUGIN_ERRORS as error:
                find = ctx.obj.origin_of if ctx.obj else lambda _: None
                if is_interrupt(error):
                    raise KeyboardInterrupt from error
                if isinstance(error, SystemExit) or origin_of(error, find):
                    raise PluginError(describe(error, find)) from error
                raise

    def _host(self, ctx: click.Context) -> PluginHost:
        """Load the plugins of -p and HARNESS_PLUGINS once, and let them add commands."""
        if ctx.obj is None:
            with diverted():
                ctx.obj = load_plugins(ctx.params.get("plugin", ()))
                ctx.obj.add_commands(self)
        host: PluginHost = ctx.obj
        return host

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command; if its output is for programs, keep everything else off standard output."""
        super().add_command(cmd, name)
        cmd.invoke = partial(answering, cmd, cmd.invoke)  # type: ignore[method-assign]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        self._host(ctx)
        return super().list_commands(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command after loading plugins; if a plugin does not load, allow only the commands WITHOUT_PLUGINS."""
        host = self._host(ctx)
        name, command, rest = super().resolve_command(ctx, args)
        if name not in WITHOUT_PLUGINS:
            host.check()
        return name, command, rest


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print version and name of the distribution, and exit."""
    if value:
        click.echo(f"harness, version {distribution.version()} ({distribution.name()})")
        ctx.exit()


@click.group("harness", cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "-p",
    "plugin",
    multiple=True,
    is_eager=True,  # processed before --help
    metavar="NAME",
    help="Load a plugin (module, file.py, or folder of a package); no:NAME disables one.",
)
@click.option("--traceback", is_flag=True, help="Show the traceback of an error.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def main(**_: object) -> None:
    """Evaluate ladders of language models, store the log-probability of every choice, and fit laws that predict
    larger models.
    """


OWN = (
    evaluate, check, fit, predict, compare, diff, report, plot, browse, ls, show, plugins, new, doctor, docs,
    completion,
)  # fmt: skip
for command in OWN:
    main.add_command(command)
