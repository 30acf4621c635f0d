"""The metric `example`."""

import harness


def example(scores):
    """Return the log-probability of the best choice minus that of the correct one, nats."""
    return scores.max(scores.logprob) - scores.gold(scores.logprob)  # (n,) for n documents


@harness.hookimpl
def register_metrics(register):
    """Register the metric with the required contents of scores."""
    register(example, needs=["choices", "one_gold"], higher_is_better=False)
