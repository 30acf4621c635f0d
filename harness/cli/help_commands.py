"""Help commands: `harness doctor`, `harness docs` and `harness completion`."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import click
from click.exceptions import Exit
from click.shell_completion import get_completion_class

from harness.cli.output import FORMAT, print_tables
from harness.errors import UsageError, suggest
from harness.host import PluginHost

COMMENT = re.compile(r"<!-- .*?-->\n?", re.DOTALL)
READMES = {"reference": "harness", "plugins": "harness_plugins", "tasks": "harness_tasks"}


@click.command("doctor")
@click.argument("store", type=click.Path(path_type=Path), default=".")
@FORMAT
@click.pass_obj
def doctor(host: PluginHost, /, store: Path, suffix: str | None) -> None:
    """Print versions, extras, GPUs, engines, plugins and free disk, and what to do about problems.

    STORE is the folder whose disk is checked. The exit status is 1 if something needs attention.
    """
    from harness.reports.doctor import doctor_table

    table = doctor_table(host, store)
    if "md" in host.reporters:
        print_tables([table], host, suffix=suffix, every_row=True)
    else:  # the plugin with the table formats may have failed to load
        click.echo("\n".join(" | ".join(map(str, row)) for row in table.rows))
    if not table.notes[0].startswith("Nothing"):
        raise Exit(1)


def pages() -> dict[str, Path]:
    """Return the installed pages of the documentation, by name."""
    paths = {path.stem: path for path in sorted((Path(__file__).parents[1] / "docs").glob("*.md"))}
    for name, package in READMES.items():
        spec = find_spec(package)
        if spec and spec.origin and (path := Path(spec.origin).with_name("README.md")).exists():
            paths[name] = path
    return paths


@click.command("docs")
@click.argument("page", default="")
@click.option("--path", "is_path", is_flag=True, help="Print the path of the file instead of its text.")
def docs(page: str, is_path: bool) -> None:
    """Print a page of the documentation, which is installed with the package.

    Without PAGE, list the pages.
    """
    paths = pages()
    if not page:
        for name, known in paths.items():
            click.echo(f"{name:<16} {known.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")
        return
    if page not in paths:
        raise UsageError(f"there is no page {page!r}; {suggest(page, paths)}")
    click.echo(paths[page] if is_path else COMMENT.sub("", paths[page].read_text(encoding="utf-8")).rstrip())


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in a shell.

    \b
    bash:  eval "$(harness completion bash)"     in ~/.bashrc
    zsh:   eval "$(harness completion zsh)"      in ~/.zshrc
    fish:  harness completion fish > ~/.config/fish/completions/harness.fish
    """
    group = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"click cannot complete in {shell}")
    script = kind(group, {}, "harness", "_HARNESS_COMPLETE")
    click.echo(script.source_template % script.source_vars())
