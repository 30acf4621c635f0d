"""Tasks: task.yaml and documents become exact prompts."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

import harness
from harness import TaskError, UsageError
from harness.host import PluginHost
from harness.tasks import jinja_fields
from harness.tasks.finding import find_task, find_tasks
from harness.tasks.loading import load_task
from harness.tasks.prompt_options import Prompting
from harness.tasks.task_files import read_task_file
from harness.testing import check_task


def write_task(folder: Path, yaml: str, rows: list[dict] | None = None, name: str = "mine") -> Path:
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "task.yaml").write_text(yaml)
    if rows is not None:
        (path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(task) -> list[list[tuple[str, str]]]:
    return [[doc.prompt(k) for k in range(len(doc.choices))] for doc in task.docs]


CHOICE = 'documents: docs.jsonl\nquery: "{q}"\nchoices: c\ngold: g\n'
ROWS = [{"q": "1+1", "c": ["2", "3"], "g": 0}, {"q": "2+2", "c": ["5", "4"], "g": 1}]


def test_a_choice_task_is_two_files(tmp_path):
    task = check_task(write_task(tmp_path, CHOICE, ROWS))
    assert (task.name, task.kind, task.metric) == ("mine", "choice", "acc")
    assert prompts(task) == [[("1+1", " 2"), ("1+1", " 3")], [("2+2", " 5"), ("2+2", " 4")]]
    assert [doc.gold for doc in task.docs] == [(0,), (1,)]
    assert [doc.doc_id for doc in task.docs] == ["0", "1"]


def test_description_delimiter_and_attributes(tmp_path):
    yaml = CHOICE + 'description: "Sums.\\n\\n"\ndelimiter: "="\nattributes: [q]\nid: "sum-{q}"\n'
    task = check_task(write_task(tmp_path, yaml, ROWS))
    assert prompts(task)[0][0] == ("Sums.\n\n1+1", "=2")
    assert task.docs[0].attributes == {"q": "1+1"}
    assert task.docs[1].doc_id == "sum-2+2"


def test_letters_list_the_options_and_are_scored(tmp_path):
    task = check_task(write_task(tmp_path, CHOICE + "formulation: letter\n", ROWS))
    assert prompts(task)[1] == [("2+2\nA. 5\nB. 4\nAnswer:", " A"), ("2+2\nA. 5\nB. 4\nAnswer:", " B")]
    assert task.docs[0].choices == ("A", "B")


def test_gold_by_label_constant_or_of_the_document(tmp_path):
    rows = [
        {"q": "x", "c": ["a", "b"], "l": ["1", "2"], "g": "2"},
        {"q": "y", "c": ["a", "b"], "l": ["1", "2"], "g": 1},
    ]
    constant = CHOICE.replace("gold: g", 'gold: {field: g, labels: ["1", "2"]}')
    labelled = CHOICE.replace("gold: g", "gold: {field: g, labels: l}")
    for yaml in (constant, labelled):
        task = check_task(write_task(tmp_path, yaml, rows))
        assert [doc.gold for doc in task.docs] == [(1,), (0,)]


def test_several_correct_choices_as_in_truthfulqa(tmp_path):
    yaml = (
        'documents: docs.csv\nquery: "Q: {Question}\\nA:"\nmetric: mc2\n'
        'correct: {field: Correct, split: ";"}\nwrong: {field: Wrong, split: ";"}\n'
    )
    path = write_task(tmp_path, yaml)
    with (path / "docs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["Question", "Correct", "Wrong"], ["Why?", "Because; So it is", "Never; No; Not"]]
        )
    task = check_task(path)
    assert task.docs[0].choices == ("Because", "So it is", "Never", "No", "Not")
    assert task.docs[0].gold == (0, 1)


def test_contexts_that_differ_share_their_continuation_as_in_winogrande(tmp_path):
    yaml = (
        "documents: docs.jsonl\n"
        'contexts: ["{sentence|before:_}{option1}", "{sentence|before:_}{option2}"]\n'
        'continuation: "{sentence|after:_|strip}"\n'
        'gold: {field: answer, labels: ["1", "2"]}\n'
    )
    rows = [{"sentence": "The _ was too big.", "option1": "cup", "option2": "ball", "answer": "2"}]
    task = check_task(write_task(tmp_path, yaml, rows))
    assert prompts(task) == [[("The cup", " was too big."), ("The ball", " was too big.")]]
    assert task.docs[0].gold == (1,)


def test_minimal_pairs_as_in_blimp(tmp_path):
    yaml = 'documents: "*.jsonl.gz"\ngroup: "{file}"\ncorrect: "{good}"\nwrong: "{bad}"\n'
    path = write_task(tmp_path, yaml)
    for name in ("b", "a"):
        with gzip.open(path / f"{name}.jsonl.gz", "wt") as stream:
            stream.write(json.dumps({"good": f"{name} is", "bad": f"{name} are"}) + "\n")
    task = check_task(path)
    assert prompts(task)[0] == [("", " a is"), ("", " a are")]
    assert [(doc.group, doc.doc_id, doc.gold) for doc in task.docs] == [("a", "a/0", (0,)), ("b", "b/0", (0,))]


def test_one_choice_cloze_as_in_lambada(tmp_path):
    yaml = 'kind: cloze\ndocuments: docs.jsonl\nquery: "{context}"\ncontinuation: "{last}"\n'
    task = check_task(write_task(tmp_path, yaml, [{"context": "He said he didn't", "last": "know"}]))
    assert prompts(task) == [[("He said he didn't", " know")]]
    assert (task.metric, task.docs[0].gold) == ("greedy_match", (0,))


def test_plain_text(tmp_path):
    task = check_task(write_task(tmp_path, 'kind: text\ndocuments: docs.jsonl\ntext: "{t}"\n', [{"t": "Once.\n"}]))
    assert prompts(task) == [[("", "Once.\n")]]
    assert task.metric == "bits_per_byte"


MMLU = (
    'documents: "*_test.csv"\ncolumns: [question, A, B, C, D, answer]\ngroup: "{file|before:_test}"\n'
    'query: "{question|strip}"\nchoices: ["{A}", "{B}", "{C}", "{D}"]\ngold: {field: answer, labels: [A, B, C, D]}\n'
    'formulation: letter\ndescription: "About {file|before:_test|replace:_: }.\\n\\n"\n'
    'fewshot: {documents: "*_dev.csv", group: "{file|before:_dev}", n: N, seed: SEED}\n'
)


def test_rows_within_a_document_get_the_fields_around_them(tmp_path):
    yaml = CHOICE.replace("docs.jsonl", "docs.json") + "rows: problems\nattributes: [page]\n"
    path = write_task(tmp_path, yaml)
    (path / "docs.json").write_text(json.dumps([{"page": 7, "problems": ROWS}, {"page": 8, "problems": ROWS[:1]}]))
    task = check_task(path)
    assert [(doc.doc_id, doc.attributes["page"]) for doc in task.docs] == [("0", 7), ("1", 7), ("2", 8)]
    (path / "docs.json").write_text(json.dumps({"page": 7}))
    with pytest.raises(TaskError, match="expected a list of documents in the field 'problems'; its fields: page"):
        load_task(read_task_file(path))


def test_blocks_of_lines_are_documents(tmp_path):
    yaml = 'documents: d.txt\ncolumns: [l, q, a, b]\nquery: "{q}"\nchoices: ["{a|slice:2}", "{b|slice:2}"]\n'
    path = write_task(tmp_path, yaml + "gold: {field: l, labels: [a, b]}\n")
    (path / "d.txt").write_text("\na\n1+1\nA.2\nB.3\n\nb \n2+2\nA.5\nB.4\n")
    assert [doc.gold for doc in check_task(path).docs] == [(0,), (1,)]
    (path / "d.txt").write_text("a\n1+1\nA.2\n")
    with pytest.raises(TaskError, match=r"d.txt, block 0: expected 4 lines \(l, q, a, b\), found 3"):
        load_task(read_task_file(path))


def test_fields_are_made_before_prompts(tmp_path):
    yaml = CHOICE.replace('"{q}"', '"{both|lower}"') + 'fields: {sum: "{q}=", both: "A {sum}"}\n'
    assert check_task(write_task(tmp_path, yaml, ROWS)).docs[0].contexts == ("a 1+1=",)


def test_documents_are_left_out_by_id_and_keep_the_others_ids(tmp_path):
    assert [doc.doc_id for doc in check_task(write_task(tmp_path, CHOICE + 'leave_out: ["0"]\n', ROWS)).docs] == ["1"]
    with pytest.raises(TaskError, match="leave_out: unknown document 7"):
        load_task(read_task_file(write_task(tmp_path, CHOICE + 'leave_out: ["7"]\n', ROWS)))


def test_an_answer_counts_once_and_as_right_where_it_is_both(tmp_path):
    yaml = "documents: docs.jsonl\ncorrect: right\nwrong: false\n".replace("false", "no")
    rows = [{"right": ["a", "b", "a"], "no": ["c", "b", "c"]}]
    task = check_task(write_task(tmp_path, yaml.replace("wrong: no", 'wrong: "no"'), rows))
    assert (task.docs[0].choices, task.docs[0].gold) == (("a", "b", "c"), (0, 1))


def test_gold_by_flags_and_contexts_from_a_field(tmp_path):
    flags = CHOICE.replace("gold: g", "gold: {flags: f}")
    task = check_task(write_task(tmp_path, flags, [{"q": "x", "c": ["a", "b", "c"], "f": [1, 0, 1]}]))
    assert task.docs[0].gold == (0, 2)
    yaml = 'documents: docs.jsonl\ncontexts: c\ncontinuation: "{q}"\ngold: g\n'
    assert prompts(check_task(write_task(tmp_path, yaml, ROWS)))[0] == [("2", " 1+1"), ("3", " 1+1")]


def test_groups_are_numbered_and_sorted_wherever_they_stand(tmp_path):
    rows = [{**ROWS[0], "s": "b"}, {**ROWS[1], "s": "a"}, {**ROWS[0], "s": "b"}]
    task = check_task(write_task(tmp_path, CHOICE + 'group: "{s}"\n', rows))
    assert [doc.doc_id for doc in task.docs] == ["a/0", "b/0", "b/1"]


def test_all_of_several_files_are_wanted(tmp_path):
    path = write_task(tmp_path, CHOICE.replace("docs.jsonl", "[docs.jsonl, more.jsonl]"), ROWS)
    with pytest.raises(TaskError, match="no file docs.jsonl or more.jsonl in"):
        load_task(read_task_file(path))
    (path / "more.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    assert len(load_task(read_task_file(path)).docs) == 3


def test_another_folder_of_the_data_may_hold_the_documents(tmp_path):
    path = write_task(tmp_path, CHOICE + "folder: shared\n")
    (tmp_path / "data" / "shared").mkdir(parents=True)
    (tmp_path / "data" / "shared" / "docs.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    assert len(load_task(read_task_file(path), tmp_path / "data").docs) == 1


def write_mmlu(folder: Path, n: int, seed: str) -> Path:
    path = write_task(folder, MMLU.replace("N,", f"{n},").replace("SEED", seed))
    for subject in ("high_maths", "low_art"):
        for split, size in (("dev", 4), ("test", 2)):
            with (path / f"{subject}_{split}.csv").open("w", newline="") as stream:
                rows = [[f"{subject} {split} {i} ", "w", "x", "y", "z", "ABCD"[i % 4]] for i in range(size)]
                csv.writer(stream).writerows(rows)
    return path


def test_few_shot_examples_come_from_the_dev_file_of_the_group(tmp_path):
    task = check_task(write_mmlu(tmp_path, 2, "null"))
    context, continuation = task.docs[3].prompt(1)
    options = "\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    assert context == (
        f"About low art.\n\nlow_art dev 0{options} A\n\nlow_art dev 1{options} B\n\nlow_art test 1{options}"
    )
    assert continuation == " B"
    assert [doc.doc_id for doc in task.docs] == ["high_maths/0", "high_maths/1", "low_art/0", "low_art/1"]


def test_a_seed_draws_examples_and_draws_them_again(tmp_path):
    drawn = [load_task(read_task_file(write_mmlu(tmp_path, 3, seed))).docs[0].contexts[0] for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2]


def test_too_few_examples_are_an_error(tmp_path):
    with pytest.raises(TaskError, match="few-shot: 9 examples requested, 4 documents"):
        load_task(read_task_file(write_mmlu(tmp_path, 9, "null")))


def test_a_limit_keeps_the_first_documents_of_each_group(tmp_path):
    task = load_task(read_task_file(write_mmlu(tmp_path, 0, "null")), limit=1)
    assert [doc.doc_id for doc in task.docs] == ["high_maths/0", "low_art/0"]


def test_documents_come_from_the_data_folder_first(tmp_path):
    path = write_task(tmp_path, CHOICE, ROWS)
    data = tmp_path / "data"
    (data / "mine").mkdir(parents=True)
    (data / "mine" / "docs.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    assert len(load_task(read_task_file(path), data).docs) == 1


def test_a_changed_prompt_changes_the_fingerprint_and_an_attribute_does_not(tmp_path):
    def fingerprint(yaml, rows=ROWS):
        return load_task(read_task_file(write_task(tmp_path, yaml, rows))).fingerprint

    plain = fingerprint(CHOICE)
    assert fingerprint(CHOICE + "attributes: [q]\nabout: x\n") == plain
    changed = [
        fingerprint(CHOICE + 'description: " "\n'),
        fingerprint(CHOICE + "unconditional: true\n"),
        fingerprint(CHOICE + 'group: "{q}"\n'),
        fingerprint(CHOICE, [ROWS[0], {**ROWS[1], "g": 0}]),
        fingerprint(CHOICE, [ROWS[0], {**ROWS[1], "c": ["5", "4 "]}]),
        fingerprint(CHOICE, ROWS[:1]),
    ]
    assert len({plain, *changed}) == 7


@pytest.mark.parametrize(
    ("yaml", "rows", "message"),
    [
        (
            CHOICE,
            [{"q": "x", "c": ["a", "b"], "g": 2}],
            r"document 0: gold is \[2\]; expected indices of the 2 choices",
        ),
        (CHOICE, [{"q": "x", "c": ["a", "b"], "g": -1}], "gold is"),
        (CHOICE, [{"q": "x", "c": ["a", "b"], "g": []}], "gold is"),
        (CHOICE, [{"q": "x", "c": ["a", "b"], "g": [0, 1]}], "all 2 choices are gold"),
        (CHOICE, [{"q": "x", "c": ["a", "b"], "g": "B"}], "expected the index of a choice"),
        (CHOICE, [{"q": "x", "c": ["a", "b"], "g": True}], "expected the index of a choice"),
        (CHOICE, [{"q": "x", "c": ["a", ""], "g": 0}], "document 0: choice 1 is empty"),
        (CHOICE, [{"q": "x", "c": ["a"], "g": 0}], "1 choices; expected two or more"),
        (CHOICE, [{"c": ["a", "b"], "g": 0}], "no field 'q'"),
        (CHOICE, [], "no documents"),
        (CHOICE + 'id: "same"\n', ROWS, "two documents have the id 'same'"),
        (CHOICE.replace("gold: g", "gold: {field: g, labels: [x]}"), ROWS, "one of the labels x"),
        ('kind: text\ndocuments: docs.jsonl\ntext: "{t}"\n', [{"t": ""}], "text is empty"),
    ],
)
def test_a_wrong_document_is_named(tmp_path, yaml, rows, message):
    with pytest.raises(TaskError, match=message) as caught:
        load_task(read_task_file(write_task(tmp_path, yaml, rows)))
    assert "task mine" in str(caught.value)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("documents: docs.jsonl\n", "kind: choice needs choices and gold"),
        (CHOICE + "fewshots: 3\n", "unknown key fewshots"),
        (CHOICE + "kind: essay\n", "kind: 'essay'; expected one of"),
        (CHOICE + "formulation: number\n", "formulation: 'number'; expected one of"),
        (CHOICE + "average: median\n", "average"),
        (CHOICE.replace("documents: docs.jsonl\n", ""), "expected documents"),
        (CHOICE + "delimiter: 3\n", "delimiter: 3; expected text: put it in quotes"),
        (CHOICE + "description: {q}\n", "description: {'q': None}; expected text: put it in quotes"),
        ("", "expected keys and values, found nothing"),
        ("[1, 2]", "expected keys and values"),
        ("a: [", "task.yaml"),
        ('kind: cloze\ndocuments: d\nquery: "x"\n', "kind: cloze needs query and continuation"),
        (CHOICE + "fewshot: {n: 2}\n", "fewshot: expected documents: and n:"),
        (CHOICE + "fewshot: {n: 2, documents: d, shots: 1}\n", "shots"),
        (CHOICE + "hub: {dataset: a/b, split: test}\n", "hub: expected dataset:, revision: and split:"),
        (CHOICE + "hub: {dataset: a/b, revision: x, split: test, documents: d}\n", "hub: unknown key documents"),
        (CHOICE + "hub: {dataset: a/b, revision: x, split: test, name: 3}\n", "expected hub: name: the name of"),
        (CHOICE + "hub: {dataset: a/b, revision: x, split: t, fewshot: {split: t, n: 1}}\n", "are scored documents"),
    ],
)
def test_a_wrong_task_file_is_named(tmp_path, yaml, message):
    with pytest.raises(TaskError, match=message) as caught:
        read_task_file(write_task(tmp_path, yaml))
    assert "task.yaml" in str(caught.value)


def test_examples_from_the_scored_documents_are_refused(tmp_path):
    path = write_task(tmp_path, CHOICE + "fewshot: {documents: docs.jsonl, n: 1}\n", ROWS)
    with pytest.raises(TaskError, match="examples are scored documents"):
        load_task(read_task_file(path))


def test_a_bad_line_is_named_with_its_number(tmp_path):
    path = write_task(tmp_path, CHOICE)
    (path / "docs.jsonl").write_text(json.dumps(ROWS[0]) + "\n\n{oops\n")
    with pytest.raises(TaskError, match="docs.jsonl, line 3"):
        load_task(read_task_file(path))
    (path / "docs.jsonl").write_text("[1]\n")
    with pytest.raises(TaskError, match="line 1: expected a JSON object, found list"):
        load_task(read_task_file(path))


def test_a_csv_row_of_another_length_is_named(tmp_path):
    path = write_task(tmp_path, CHOICE.replace("docs.jsonl", "docs.csv"))
    (path / "docs.csv").write_text("q,c,g\n1,2,3\n1,2\n")
    with pytest.raises(TaskError, match="docs.csv, line 3: expected 3 columns"):
        load_task(read_task_file(path))


def test_missing_documents_say_where_they_were_looked_for(tmp_path):
    with pytest.raises(TaskError, match="no file docs.jsonl in .*--data"):
        load_task(read_task_file(write_task(tmp_path, CHOICE)))


def test_tasks_are_found_by_name_wildcard_and_path(tmp_path, host: PluginHost):
    path = write_task(tmp_path, CHOICE, ROWS)
    names = [task.name for task in find_tasks(["nano_j*", "nano_job", str(path)], host, limit=2)]
    assert names == ["nano_job", "mine"]
    with pytest.raises(UsageError, match="no task 'nano_jobs', .*; did you mean 'nano_job'"):
        find_tasks(["nano_jobs"], host)


NANO = [
    *("nano_addition", "nano_agreement", "nano_birthplace", "nano_flag"),
    *("nano_job", "nano_ordering", "nano_saying", "nano_text"),
]  # their documents ship with them


def test_shipped_tasks_pass_the_check(host: PluginHost):
    for name in NANO:
        task = check_task(host.tasks[name])
        assert len(task.docs) == (400 if name == "nano_text" else 1000)
        assert task.about


def test_shipped_prompts_are_what_they_were(host: PluginHost):
    """A change of these fingerprints makes every stored cell of the task obsolete."""
    assert {name: find_task(name, host).fingerprint for name in NANO} == FINGERPRINTS


FINGERPRINTS = {
    "nano_addition": "8c783222593c9249",
    "nano_agreement": "b0914499d53f08f7",
    "nano_birthplace": "79d2871386292a28",
    "nano_flag": "cf2208c593690f73",
    "nano_job": "5161c6a707a8decf",
    "nano_ordering": "5019e3cb0e422fce",
    "nano_saying": "b86d3a6aa6cbc556",
    "nano_text": "fa0f15af2c271d6b",
}


def test_documents_in_another_encoding_are_named(tmp_path):
    path = write_task(tmp_path, CHOICE, ROWS)
    (path / "docs.jsonl").write_bytes('{"q": "\u00e9"}'.encode("latin-1"))
    with pytest.raises(TaskError, match="docs.jsonl: .*expected text in UTF-8"):
        load_task(read_task_file(path))


def test_groups_are_strata_unless_the_task_calls_them_clusters(tmp_path):
    """The key is no part of the fingerprint: prompts are the same, only errors differ."""
    rows = [{"q": "a", "c": ["x", "y"], "g": 0, "s": "one"}, {"q": "b", "c": ["x", "y"], "g": 1, "s": "two"}]
    strata, clusters = (
        check_task(write_task(tmp_path, CHOICE + 'group: "{s}"\n' + more, rows, name))
        for name, more in (("a", ""), ("b", "groups: clusters\n"))
    )
    assert (strata.groups, clusters.groups) == ("strata", "clusters")
    assert strata.fingerprint == clusters.fingerprint
    with pytest.raises(AssertionError, match="groups: 'blocks'; expected one of clusters, strata"):
        check_task(write_task(tmp_path, CHOICE + "groups: blocks\n", rows, "c"))


DOC = harness.Doc("0", ("1+1=",), ("2", "3"), ("2", "3"), (0,))


def test_wildcards_select_the_names_that_a_source_lists():
    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_sources(register):
            register(
                "many", lambda name: harness.Task(f"many:{name}", "choice", (DOC,), ""), lambda: ["one", "two", "three"]
            )

    host = PluginHost()
    host.add(Plugin, "mine")
    assert [task.name for task in find_tasks(["many:t*"], host)] == ["many:two", "many:three"]
    assert len(find_tasks(["many:*"], host)) == 3
    with pytest.raises(UsageError, match="'many:x.' selects no task of the source 'many': its 3 names do not match"):
        find_tasks(["many:x*"], host)


def test_a_field_can_be_computed_by_jinja(tmp_path):
    yaml = CHOICE.replace('"{q}"', '"{short}"')
    yaml += "fields:\n  short: {jinja: \"{% if g %}Sum: {% endif %}{{ q | regex_replace('[0-9]+', 'N') }}\"}\n"
    assert prompts(check_task(write_task(tmp_path, yaml, ROWS)))[1][0][0] == "Sum: N+N"
    assert prompts(load_task(read_task_file(tmp_path / "mine")))[0][0][0] == "N+N"


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        ("{{ missing }}", "fields: short: jinja: '{{ missing }}': UndefinedError: 'missing' is undefined"),
        ("{{ q", "TemplateSyntaxError: unexpected end of template"),
        ("{{ q.__class__.__mro__ }}", "SecurityError: access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ 'x' * 99999999999 }}", "MemoryError|OverflowError"),
        ("{{ q | center(20000000) }}", "the text has more than 10000000 characters"),
    ],
)
def test_a_jinja_field_that_cannot_be_computed_says_why(tmp_path, jinja, message):
    folder = write_task(tmp_path, CHOICE + f"fields:\n  short: {{jinja: {json.dumps(jinja)}}}\n", ROWS)
    with pytest.raises(TaskError, match=message):
        load_task(read_task_file(folder))


def test_a_jinja_field_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(jinja_fields, "SECONDS", 0.5)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TaskError, match="took longer than 0.5 s"):
        jinja_fields.render(endless, {})
    monkeypatch.setattr(jinja_fields, "SECONDS", 60.0)
    assert jinja_fields.render("{{ 1 + 1 }}", {}) == "2"  # in a new process


def test_fields_of_another_form_are_refused(tmp_path):
    with pytest.raises(TaskError, match="expected a table of templates; one of jinja2 is {jinja: TEMPLATE}"):
        read_task_file(write_task(tmp_path, CHOICE + "fields: {a: {jinja2: x}}\n", ROWS))


def test_a_text_file_is_one_document(tmp_path):
    folder = write_task(tmp_path, 'kind: text\ndocuments: "*.txt"\ntext: "{text}"\nid: "{file}"\n')
    (folder / "one.txt").write_text(" First line.\n\nSecond {line}.\n")
    (folder / "two.txt").write_text("Another.")
    task = check_task(folder)
    assert [(doc.doc_id, doc.choices[0]) for doc in task.docs] == [
        ("one", " First line.\n\nSecond {line}.\n"),
        ("two", "Another."),
    ]


SHOTS = CHOICE + "fewshot: {documents: dev.jsonl, n: 1}\n"
OF_A_RANGE = CHOICE + "fewshot: {documents: docs.jsonl, n: 1, only: {i: 0..2}}\n"


@pytest.mark.parametrize(
    ("yaml", "count"),
    [
        (SHOTS.replace("docs.jsonl", '"*.jsonl"'), 1),
        (SHOTS.replace("dev.jsonl", "./docs.jsonl"), 6),
        (OF_A_RANGE, 3),
        (OF_A_RANGE + "only: {i: 2..5}\n", 1),
    ],
    ids=["a wildcard", "another name", "no range of its own", "ranges that overlap"],
)
def test_examples_that_are_scored_under_another_name_or_range_are_refused(tmp_path, yaml, count):
    """A document whose answer stood in its own prompt was scored, without a word."""
    rows = [{"q": f"{i} + 1 =", "c": ["5", "4"], "g": 0, "i": i} for i in range(6)]
    path = write_task(tmp_path, yaml, rows)
    (path / "dev.jsonl").write_text(json.dumps({**rows[0], "q": "dev"}) + "\n")
    with pytest.raises(TaskError, match=f"fewshot: {count} documents are examples and are scored, too"):
        load_task(read_task_file(path))
    whole = OF_A_RANGE.replace("0..2", "0..1") + "only: {i: 2..5}\n"
    assert len(load_task(read_task_file(write_task(tmp_path, whole))).docs) == 4


def test_examples_asked_for_of_the_scored_documents_are_refused(tmp_path):
    """--num-fewshot of a task that shows none by default, and names the documents that it scores."""
    path = write_task(tmp_path, CHOICE + "fewshot: {documents: docs.jsonl, n: 0}\n", ROWS)
    with pytest.raises(TaskError, match="2 documents are examples and are scored, too"):
        load_task(read_task_file(path), prompting=Prompting(num_fewshot=1))


def test_a_key_that_is_given_twice_is_refused(tmp_path):
    """YAML takes the last value of a key, and CSV the last column of a name."""
    with pytest.raises(TaskError, match="the table at line 1 has the key 'gold' twice"):
        read_task_file(write_task(tmp_path, CHOICE + "gold: 0\n"))
    path = write_task(tmp_path, CHOICE.replace("docs.jsonl", "docs.csv"))
    (path / "docs.csv").write_text("q,g,g\nx,0,1\n")
    with pytest.raises(TaskError, match=r"docs.csv: several columns have the name g"):
        load_task(read_task_file(path))


@pytest.mark.parametrize("row", ['{"q": "x", "g": 0, "g": 1}', '{"q": "x", "g": 0, "in": {"a": [{"g": 1, "g": 1}]}}'])
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_document_that_gives_a_key_twice_is_refused(tmp_path, suffix, row):
    """The last one counted: a merged file had the gold label of another one."""
    path = write_task(tmp_path, CHOICE.replace("docs.jsonl", f"docs.{suffix}"))
    (path / f"docs.{suffix}").write_text(f"{row}\n")
    where = ", line 1" if suffix == "jsonl" else ""
    with pytest.raises(TaskError, match=rf"docs.{suffix}{where}: an object has the key 'g' twice; remove one of them"):
        load_task(read_task_file(path))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400"])
def test_a_choice_that_is_missing_in_a_table_is_not_the_text_nan(tmp_path, value):
    path = write_task(tmp_path, CHOICE)
    (path / "docs.jsonl").write_text('{"q": "x", "c": ["a", VALUE], "g": 0}'.replace("VALUE", value))
    with pytest.raises(TaskError, match=r"document 0: field 'c' is (nan|inf); expected text or a number"):
        load_task(read_task_file(path))


def test_a_byte_order_mark_long_fields_and_digits_that_are_no_numbers(tmp_path):
    path = write_task(tmp_path, CHOICE.replace("docs.jsonl", "docs.*").replace("choices: c", "choices: [a, b]"))
    (path / "docs.csv").write_text(f'\ufeffq,g\n"{"long " * 40_000}",1\n')
    (doc,) = load_task(read_task_file(path)).docs
    assert (len(doc.contexts[0]), doc.gold) == (200_000, (1,))
    (path / "docs.csv").rename(path / "away")
    (path / "docs.jsonl").write_text('\ufeff{"q": "x", "g": "²"}\n')
    with pytest.raises(TaskError, match="document 0: gold is '²'; expected the index of a choice"):
        load_task(read_task_file(path))
