"""A worker of the real vLLM whose swaps go wrong as a file `sabotage` in the folder of the new checkpoint says.

`other FOLDER` reads the weights of another checkpoint; `packed MODULE` keeps the old packed copy of a module's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness_plugins.engines.processes import Parent
from harness_plugins.engines.vllm_checks import tensors_of
from harness_plugins.engines.vllm_worker import Worker


def spoil_swaps() -> None:
    """Let all workers of this process swap as they are told."""
    from vllm.v1.worker.gpu_worker import Worker as VllmWorker

    right = VllmWorker.reload_weights

    def reload_weights(self: Any, weights_iterator: Any) -> None:
        file = Path(self.model_config.model) / "sabotage"
        kind, _, target = file.read_text().partition(" ") if file.exists() else ("", "", "")
        if kind == "other":
            list(weights_iterator)
            weights_iterator = tensors_of(target, self.device)
        modules = dict(self.model_runner.get_model().named_modules())
        head = modules[target].cpu_linear if kind == "packed" else None
        right(self, weights_iterator=weights_iterator)
        if head:
            modules[target].cpu_linear = head

    VllmWorker.reload_weights = reload_weights


class Saboteur(Worker):
    def _open(self, *arguments: Any) -> None:
        super()._open(*arguments)
        spoil_swaps()


if __name__ == "__main__":
    Saboteur(Parent()).run()
