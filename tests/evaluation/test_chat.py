"""Chat templates: what a conversation becomes, and that BOS is never there twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import Doc, Generation, Task, TokenError, UsageError
from harness.evaluation.bos_and_truncation import Encoder
from harness.evaluation.chat import Chat, make_chat
from harness.evaluation.tokens import encode_prompts, encode_task
from harness.tasks.conversations import as_chat
from harness.tasks.prompt_options import Prompting
from harness_plugins.engines.tokenizers import HFTokenizer
from tests.plugins.small_tokenizers import gpt2

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WRITES_BOS = "{{ bos_token }}" + PLAIN
DOC = Doc("d", ("What is 1+1?",), (" 2", " 3"), ("2", "3"), (0,))
BOS = "<|end|>"


def tokenizer(folder: Path, *, adds_bos: bool, template: str | None = None) -> HFTokenizer:
    """Return a byte-level tokenizer whose BOS is <|end|>, saved as a checkpoint has it."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = gpt2(["What is one plus one? It is two.", "system user assistant"])
    if adds_bos:
        special = [(BOS, inner.token_to_id(BOS))]
        inner.post_processor = TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=special)
    saved = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=BOS, eos_token=BOS)
    saved.chat_template = template
    saved.save_pretrained(folder)
    loaded = HFTokenizer(str(folder))
    assert bool(loaded.prefix_ids) is adds_bos
    return loaded


def requests(tokenizer_of_engine: HFTokenizer, chat: Chat, folder: Path, bos: str, *, generate: bool = False):
    """Return the token ids of the context of a conversation of one document, and its continuations."""
    encoder = Encoder(tokenizer_of_engine, 500, bos, render=chat.renderer(tokenizer_of_engine, folder))
    prompting = Prompting(chat=True, system_prompt=chat.system_prompt)
    if generate:
        task = as_chat(Task("t", "generate", (DOC,), "f", generation=Generation("exact", 5)), prompting)
        return encode_prompts(task, encoder).prompts[0], ()
    (request,) = encode_task(as_chat(Task("t", "choice", (DOC,), "f"), prompting), encoder).requests
    return request.context, request.continuations


@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize("template", [PLAIN, WRITES_BOS])
@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("bos", ["auto", "always", "never"])
def test_bos_is_there_once_whoever_writes_it(tmp_path, adds_bos, template, bos, generate):
    loaded = tokenizer(tmp_path, adds_bos=adds_bos, template=template)
    context, _ = requests(loaded, Chat(system_prompt="Count."), tmp_path, bos, generate=generate)
    wanted = template == WRITES_BOS or bos == "always" or (bos == "auto" and adds_bos)
    assert context.count(loaded.bos_id) == wanted
    assert not wanted or context[0] == loaded.bos_id
    text = "<|system|>Count.\n<|user|>What is 1+1?\n<|assistant|>"
    assert [list(context[wanted:])] == loaded.encode_batch([text])


def test_a_template_from_a_file_renders_as_that_of_the_tokenizer(tmp_path):
    loaded = tokenizer(tmp_path / "t", adds_bos=True, template=PLAIN)
    (tmp_path / "mine.jinja").write_text(PLAIN)
    chats = [make_chat("tokenizer"), make_chat(str(tmp_path / "mine.jinja"))]
    (first, choices), second = (requests(loaded, chat, tmp_path / "t", "auto") for chat in chats)
    assert (first, choices) == second
    assert [loaded.inner.decode(ids) for ids in choices] == ["2", "3"]
    assert chats[0].settings(tmp_path / "t") == chats[1].settings(tmp_path / "t")


def test_a_template_that_refuses_a_conversation_says_its_roles(tmp_path):
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + PLAIN
    loaded = tokenizer(tmp_path, adds_bos=False, template=template)
    with pytest.raises(TokenError, match="refuses a conversation of the roles system user: .*no system role"):
        requests(loaded, Chat(system_prompt="Count."), tmp_path, "auto")


def test_a_template_that_drops_the_system_prompt_is_refused(tmp_path):
    """Some templates render user and assistant only; the cell was stored as one with a system prompt."""
    drops = PLAIN.replace("in messages", "in messages if m.role != 'system'")
    loaded = tokenizer(tmp_path, adds_bos=False, template=drops)
    assert drops != PLAIN
    assert requests(loaded, Chat(), tmp_path, "auto")
    with pytest.raises(TokenError, match="the chat template drops the system message; leave the system prompt"):
        requests(loaded, Chat(system_prompt="Count."), tmp_path, "auto")


@pytest.mark.parametrize("template", ["{% for m in messages %}{{ m.content }", "{{ nothing.here }}"])
def test_a_template_with_a_mistake_is_to_be_corrected(tmp_path, template):
    loaded = tokenizer(tmp_path, adds_bos=False, template=template)
    with pytest.raises(
        TokenError, match="the chat template is invalid: (TemplateSyntax|Undefined)Error: .*; correct it"
    ):
        requests(loaded, Chat(), tmp_path, "auto")


def test_a_template_that_is_missing_is_said(tmp_path):
    loaded = tokenizer(tmp_path, adds_bos=False)
    with pytest.raises(RuntimeError, match="has no chat template .*pass a file"):
        requests(loaded, Chat(), tmp_path, "auto")
    with pytest.raises(UsageError, match="there is no such file; name one, or tokenizer"):
        make_chat(str(tmp_path / "none.jinja"))
