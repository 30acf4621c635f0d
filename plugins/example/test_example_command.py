import click
from harness.testing import check_command, example_report
from example.command import best_table, register_commands


def test_command():
    cli = click.Group()
    register_commands(cli)
    check_command(cli.commands["example"])


def test_the_best_checkpoint_is_the_largest():
    table = best_table(example_report().points)
    assert [row[3] for row in table.rows] == ["l", "l"]
