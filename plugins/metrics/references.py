"""Metrics of generated texts against reference answers: those that a document accepts.

They apply to the texts of tasks whose checker leaves them unjudged (`checker: reference`), and to other texts if they
are asked for by name. Of several references, the best one counts. Of several samples of a document, the mean counts;
corpus scores (BLEU, chrF) add up the counts of all samples.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import numpy as np

import harness
from harness import Samples

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
Columns = tuple[harness.Floats, ...]


def squad_normalised(text: str) -> str:
    """Return a text in lower case without punctuation, articles and superfluous white space (Rajpurkar et al. 2016).

    >>> squad_normalised(" The  Beatles' ")
    'beatles'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def _of_documents(samples: Samples, value: Callable[[str, tuple[str, ...]], float]) -> harness.Floats:
    """Return the mean over the samples of each document (n,) of the value of a text and its references."""
    value = cache(value)  # samples are often equal
    values = np.array([value(text, references) for text, references in samples.compared()], dtype=np.float64)
    means: harness.Floats = np.add.reduceat(values, samples.first) / samples.drawn
    return means


def exact_match(samples: Samples) -> harness.Floats:
    """Return 1 where a text equals a reference, character by character (lm-eval's exact_match without options)."""
    return _of_documents(samples, lambda text, references: float(text in references))


def normalised_match(samples: Samples) -> harness.Floats:
    """Return 1 where a text equals a reference but for case, punctuation, articles and white space (SQuAD's EM)."""
    return _of_documents(samples, lambda text, references: float(squad_normalised(text) in _normalised(references)))


def _normalised(references: Iterable[str]) -> set[str]:
    return {squad_normalised(reference) for reference in references}


def token_f1(samples: Samples) -> harness.Floats:
    """Return the F1 of the words that a text shares with a reference (SQuAD's F1, Rajpurkar et al. 2016)."""
    return _of_documents(samples, lambda text, references: max(word_f1(text, reference) for reference in references))


def word_f1(text: str, reference: str) -> float:
    """Return 2 P R / (P + R) of the words of normalised texts; 0 where they share none.

    >>> word_f1("the blue house", "A house.")
    0.6666666666666666
    """
    words, wanted = squad_normalised(text).split(), squad_normalised(reference).split()
    shared = sum((Counter(words) & Counter(wanted)).values())
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0


def rouge(kind: str, *, stemmed: bool = False) -> Callable[[Samples], harness.Floats]:
    """Return the metric ROUGE of a kind: the F-measure of the package rouge-score (Lin 2004).

    Like the package, it compares words as they are; `stemmed` compares their Porter stems, as other publications do.
    """

    def fn(samples: Samples) -> harness.Floats:
        from rouge_score.rouge_scorer import RougeScorer

        score = RougeScorer([kind], use_stemmer=stemmed).score_multi
        return _of_documents(samples, lambda text, references: score(list(references), text)[kind].fmeasure)

    words = "texts and references" + (", by stems of words" if stemmed else "")
    fn.__doc__ = f"Return the F-measure of {kind} of {words}, from 0 to 1 (package rouge-score; Lin 2004)."
    return fn


def bleu(samples: Samples) -> Columns:
    """Return the BLEU of each document, and the counts that BLEU of all is computed from (sacrebleu; 0 to 100)."""
    return _counted(samples, _bleu(effective_order=True))


def chrf(samples: Samples) -> Columns:
    """Return the chrF of each document, and the counts that chrF of all is computed from (sacrebleu; 0 to 100)."""
    return _counted(samples, _chrf(0))


def chrf_pp(samples: Samples) -> Columns:
    """Return the chrF++ of each document, and the counts that chrF++ of all is computed from (sacrebleu; 0 to 100)."""
    return _counted(samples, _chrf(2))


@cache
def _bleu(**settings: Any) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(**settings)


@cache
def _chrf(word_order: int) -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=word_order)


def _counted(samples: Samples, metric: Any) -> Columns:
    """Return the score of each document (n,), and its counts (n,) each, by a metric of sacrebleu."""
    pairs = samples.compared()
    most = max(len(references) for _, references in pairs)
    streams = [[references[k] if k < len(references) else None for _, references in pairs] for k in range(most)]
    counts = metric._extract_corpus_statistics([text for text, _ in pairs], streams)
    sums = np.add.reduceat(np.array(counts, dtype=np.float64), samples.first, axis=0)  # (n, counts)
    scores = np.array([_score(metric, row) for row in sums])
    return (scores, *sums.T)


def _score(metric: Any, counts: harness.Floats) -> float:
    return float(metric._compute_score_from_stats(counts.astype(np.int64).tolist()).score)


def _of_corpus(make: Callable[[], Any], _: harness.Floats, *counts: harness.Floats) -> harness.Floats:
    """Return the score of all documents from their counts, shapes (n,) to (), or (R, n) to (R,)."""
    sums, metric = np.stack([column.sum(-1) for column in counts], axis=-1), make()
    scores = [_score(metric, row) for row in sums.reshape(-1, sums.shape[-1])]
    return np.array(scores).reshape(sums.shape[:-1])


@harness.hookimpl
def register_metrics(register: harness.Register) -> None:
    """Register them with what they need."""
    for metric in (exact_match, normalised_match, token_f1):
        register(metric, needs=["references"], bounds=(0, 1))
    for kind in ROUGE:
        settings: dict[str, Any] = {"needs": ["references"], "bounds": (0, 1), "modules": ("rouge_score",)}
        register(rouge(kind), name=kind, **settings)
        register(rouge(kind, stemmed=True), name=f"{kind}_stem", by_name=True, **settings)
    corpus = ((bleu, _bleu, ()), (chrf, partial(_chrf, 0), ()), (chrf_pp, partial(_chrf, 2), ("chrf++",)))
    for counts, make, names in corpus:
        register(
            counts,
            needs=["references"],
            aggregate=partial(_of_corpus, make),
            bounds=(0, 100),
            known_as=names,
            modules=("sacrebleu",),
        )
