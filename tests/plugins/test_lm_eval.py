"""lm-eval's tasks on our engines: the same JSON as lm-eval writes, choice by choice, metric by metric."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.checkpoints.families import locate, select
from harness.host import PluginHost
from tests import lm_eval_cases as cases

MODEL = "aster:w64l2@1600"
CASES = {
    "arc_easy": lambda: cases.arc_easy(20),
    "boolq": lambda: cases.boolq(6),
    "mutual": lambda: cases.mutual(6),
    "gsm8k": lambda: cases.gsm8k(3, num_fewshot=2, fewshot_seed=7),
    "bbh": lambda: cases.bbh(6),
    "hellaswag": lambda: cases.hellaswag(6),
    "lambada": lambda: cases.lambada(12),
    "small_mmlu": lambda: cases.small_mmlu(4),
    "wikitext": lambda: cases.wikitext(4),
    "winogrande": lambda: cases.winogrande(6),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_results_and_samples_are_those_that_lm_eval_writes(name: str, host: PluginHost, tmp_path: Path):
    case, folder = CASES[name](), tmp_path / "tasks"
    folder.mkdir()
    case.write(folder)

    def model():
        from lm_eval.models.huggingface import HFLM

        _, weights = locate(select(MODEL, host)[0])
        settings = {"dtype": "float32", "max_length": cases.MAX_LENGTH, "batch_size": 8, "device": "cpu"}
        return HFLM(pretrained=str(weights), add_bos_token=case.add_bos, **settings)

    cases.theirs(case, folder, model, tmp_path / "theirs")
    cases.ours(case, folder, MODEL, tmp_path / "ours", host=host)
    found = cases.compare(tmp_path / "theirs", tmp_path / "ours")
    assert not found.differences, "\n".join(found.differences[:20])
    assert found.documents
