"""Tasks as token ids, cached for checkpoints with the same tokenizer and settings."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from harness.checkpoints.digests import tokenizer_digest
from harness.errors import EngineError
from harness.evaluation.bos_and_truncation import Encoder
from harness.evaluation.engine_contract import expect_tokenizer
from harness.evaluation.plan import Job, truncation_of
from harness.evaluation.tokens import EncodedPrompts, EncodedTask, encode_prompts, encode_task
from harness.host.origins import PLUGIN_ERRORS, describe
from harness.types import Task

Encoded = EncodedTask | EncodedPrompts


class EncoderPool:
    """Tasks as token ids, cached for checkpoints with the same tokenizer and settings; a thread encodes ahead."""

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.encoded: dict[str, Future[Encoded]] = {}
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="tokenise")

    def encode(self, job: Job, task: Task) -> Encoded:
        """Return a task's requests for a job's checkpoint; raise TokenError or EngineError."""
        return self.ahead(job, task).result()

    def ahead(self, job: Job, task: Task) -> Future[Encoded]:
        """Start to encode a task, unless it was started before."""
        settings = job.settings
        key = (
            tokenizer_digest(job.folder),
            settings.bos,
            settings.max_length,
            settings.truncation,
            settings.chat_template,
        )
        if key != self.key:
            self.key, self.encoded = key, {}
        future = self.encoded.get(task.fingerprint)
        if future is None or (future.done() and isinstance(future.exception(), EngineError)):
            # a tokenizer that did not load in one folder, whose disk may be gone, is loaded again from the next
            future = self.encoded[task.fingerprint] = self.thread.submit(_encode, job, task)
        return future


def _encode(job: Job, task: Task) -> Encoded:
    settings = job.settings
    try:
        tokenizer = job.info.load_tokenizer()
    except PLUGIN_ERRORS as error:  # tokenizers raise errors of many libraries
        raise EngineError(f"the tokenizer in {job.folder} does not load: {describe(error)}") from error
    expect_tokenizer(tokenizer, settings.engine)
    encode = encode_prompts if task.generation else encode_task
    render = job.chat.renderer(tokenizer, job.folder) if job.chat else None
    return encode(
        task, Encoder(tokenizer, settings.max_length, settings.bos, truncation_of(settings, task), render=render)
    )
