"""The figure `example` of `harness report`: training loss of every checkpoint."""

import harness


def example(data):
    """Return the figure, or None if the store has nothing to show. `data` is a harness.ReportData."""
    rows = data.runs[data.runs["loss"].notna()]
    if not len(rows):
        return None
    x = {"field": "x", "type": "quantitative", "scale": {"type": "log"}, "title": "$x_title"}
    y = {"field": "loss", "type": "quantitative", "scale": {"zero": False}, "title": "Training loss (nats per token)"}
    colour = {"field": "family", "type": "nominal"}
    return harness.Panel(
        title="Training loss",
        about="Training loss of every checkpoint, in nats per token, against the chosen axis.",
        chart={"mark": "point", "encoding": {"x": x, "y": y, "color": colour}},  # Vega-Lite, without data
        rows=rows,
        controls=("family", "x"),
    )


@harness.hookimpl
def register_panels(register):
    """Register the figure."""
    register("example", example)
