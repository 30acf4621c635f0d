"""The command `harness example`: the best checkpoint of every task."""

import harness


def best_table(points):
    """Return the best checkpoint of every task, from points (one row per checkpoint, task and metric)."""
    rows = [
        (task, metric, row["family"], row["size"], harness.Measured(row["value"], row["stderr"]))
        for (task, metric), group in points.groupby(["task", "metric"])
        for row in [group.loc[group["value"].idxmax()]]
    ]
    return harness.Table("example", "Best checkpoints", ("task", "metric", "family", "size", "value"), tuple(rows))


@harness.hookimpl
def register_commands(cli):
    """Add the command. The context object `host` is the plugin host: host.laws, host.metrics ... by name."""
    import click

    @cli.command("example")
    @click.argument("store")
    @click.option("--metric", default="acc", show_default=True, help="Metric to compare.")
    @harness.table_options
    @click.pass_obj
    def example(host, /, store, metric, **output):
        """Print the best checkpoint of every task of STORE."""
        points = harness.open_store(store, registries=host).points(metrics=[metric])
        harness.print_tables([best_table(points)], host, **output)
