"""Start vLLM in the child process, and replace one of its loops."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

GRACE = 5.0  # seconds in which an error of the engine core is reported
CHECKS = "harness_plugins.engines.vllm_checks.Checks"  # class that vLLM adds to its workers


def take_over_at_once(is_taken: Callable[[], bool]) -> None:
    """Make vLLM fill flat containers of prompt log-probabilities with whole lists, instead of row by row."""
    from vllm.v1.engine.logprobs import LogprobsProcessor

    row_by_row = LogprobsProcessor._update_prompt_logprobs

    def update(self: Any, tensors: Any) -> None:
        token_ids, logprobs, ranks, *_ = tensors
        flat = self.prompt_logprobs
        is_simple = self.tokenizer is None and hasattr(flat, "start_indices") and logprobs.shape[1] == 1
        if not is_simple or not is_taken():
            row_by_row(self, tensors)
            return
        begin, n = len(flat.logprobs), logprobs.shape[0]
        flat.start_indices.extend(range(begin, begin + n))
        flat.end_indices.extend(range(begin + 1, begin + n + 1))
        flat.token_ids.extend(token_ids.reshape(-1).tolist())
        flat.logprobs.extend(logprobs.reshape(-1).tolist())
        flat.ranks.extend(ranks.tolist())
        flat.decoded_tokens.extend(repeat(None, n))

    LogprobsProcessor._update_prompt_logprobs = update


def end_with_core(resources: Any, grace: float = GRACE) -> None:
    """End this process `grace` seconds after the process of vLLM's engine core; its client would wait for ever.

    `resources` are those of the client, which notices the end. An error that the core reports comes earlier.
    """

    def watch() -> None:
        while not resources.engine_dead:
            time.sleep(grace / 10)
        time.sleep(grace)
        print("the process of vLLM's engine core ended", flush=True)  # noqa: T201  # to the log
        os._exit(1)

    threading.Thread(target=watch, name="engine-core", daemon=True).start()


def start(folder: str, options: Mapping[str, Any]) -> Any:
    """Start vLLM on a checkpoint with vLLM's own options."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")  # room for the token generated after a prompt
    if options.get("enforce_eager"):
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    if current_platform.is_cpu():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # this already is a separate process
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB; by default vLLM takes most of the memory
    settings = {"disable_log_stats": True, "enable_prefix_caching": True, "logprobs_mode": "raw_logprobs", "seed": 0}
    defaults = {"generation_config": "vllm", "worker_extension_cls": CHECKS}  # of generation_config.json, EOS only
    arguments = EngineArgs(model=folder, **{**settings, **defaults, **options})
    # LLM_CLASS selects batch sizes for throughput; the other contexts optimise a server's latency
    engine = LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
    resources = getattr(engine.engine_core, "resources", None)  # on a GPU, the engine core is another process
    if hasattr(resources, "engine_dead"):
        end_with_core(resources)
    return engine
