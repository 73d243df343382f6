"""Splits: nothing stands on two sides, shares are met, the seed decides, samples are nested."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from strop.errors import TaskError, UsageError
from strop.tasks import Example, SplitSettings, load_task, refuse_objective
from strop.tasks.splits import SPLITS, deal

SHARES = st.sampled_from([(0.0, 0.5, 0.5), (0.5, 0.2, 0.3), (0.1, 0.1, 0.8), (0.0, 0.2, 0.3), (0.3, 0.3, 0.1)])


@st.composite
def piles(draw: st.DrawFn) -> list[Example]:
    """Draw groups of one to four questions, some questions asked twice, in any order."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=4, max_size=16))
    grouped = draw(st.booleans())
    examples = [
        Example(f"q{group}.{member}", " a", group=f"g{group}" if grouped else None)
        for group, size in enumerate(sizes)
        for member in range(size)
    ]
    repeated = draw(st.lists(st.sampled_from(examples), max_size=5))
    return draw(st.permutations(examples + repeated))


def settings(shares: tuple[float, float, float], seed: int = 0) -> SplitSettings:
    return SplitSettings(train=shares[0], select=shares[1], test=shares[2], seed=seed)


def bundle_sizes(examples: list[Example]) -> list[int]:
    kept = {example.identity: example for example in reversed(examples)}.values()
    return sorted(Counter(example.group or example.identity for example in kept).values())


@trying(max_examples=50, deadline=None)
@given(piles(), SHARES, st.integers(0, 5))
def test_no_example_and_no_group_stands_in_two_splits(examples: list[Example], shares, seed: int) -> None:
    dealt = deal(examples, settings(shares, seed))
    identities = [example.identity for split in SPLITS for example in dealt[split]]
    assert len(identities) == len(set(identities))
    if examples[0].group is not None:
        homes = {(example.group, split) for split in SPLITS for example in dealt[split]}
        assert len(homes) == len({group for group, _ in homes})


@trying(max_examples=50, deadline=None)
@given(piles(), SHARES, st.integers(0, 5))
def test_shares_are_met_up_to_the_size_of_a_group(examples: list[Example], shares, seed: int) -> None:
    dealt = deal(examples, settings(shares, seed))
    sizes = bundle_sizes(examples)
    for split, share in zip(SPLITS, shares, strict=True):
        if share == 0:
            assert dealt[split] == ()
        else:
            assert abs(len(dealt[split]) - share * sum(sizes)) <= 2 * sizes[-1]


@trying(max_examples=50, deadline=None)
@given(piles(), st.integers(0, 5))
def test_shares_of_one_use_every_distinct_example_once(examples: list[Example], seed: int) -> None:
    dealt = deal(examples, settings((0.5, 0.2, 0.3), seed))
    assert {e.identity for split in SPLITS for e in dealt[split]} == {e.identity for e in examples}


@trying(max_examples=50, deadline=None)
@given(piles(), SHARES, st.integers(0, 5))
def test_the_same_seed_deals_the_same(examples: list[Example], shares, seed: int) -> None:
    assert deal(examples, settings(shares, seed)) == deal(list(examples), settings(shares, seed))


def test_another_seed_deals_otherwise() -> None:
    examples = [Example(f"q{i}", " a") for i in range(50)]
    assert deal(examples, settings((0, 0.5, 0.5), 0)) != deal(examples, settings((0, 0.5, 0.5), 1))


def test_without_groups_shares_are_met_to_within_one() -> None:
    dealt = deal([Example(f"q{i}", " a") for i in range(100)], settings((0.5, 0.2, 0.3)))
    assert {split: len(members) for split, members in dealt.items()} == {"train": 50, "select": 20, "test": 30}


def test_of_a_repeated_example_the_first_row_is_kept() -> None:
    examples = [Example(f"q{i % 10}", " a", row=i + 1) for i in range(30)]
    dealt = deal(examples, settings((0, 0.5, 0.5)))
    assert sorted(e.row for members in dealt.values() for e in members) == list(range(1, 11))


def test_the_same_prompt_with_another_answer_is_another_example() -> None:
    dealt = deal([Example("q", f" a{i}") for i in range(10)], settings((0, 0.5, 0.5)))
    assert sum(map(len, dealt.values())) == 10


def test_a_split_that_would_stay_empty_is_refused() -> None:
    one_group = [Example(f"q{i}", " a", group="same") for i in range(10)]
    with pytest.raises(TaskError, match="10 examples in 1 groups leave the .* split empty; give more rows"):
        deal(one_group, settings((0, 0.5, 0.5)))
    with pytest.raises(TaskError, match="1 examples in 1 groups leave the"):
        deal([Example("q", " a")] * 8, settings((0, 0.5, 0.5)))


def given_files(tmp_path: Path, overlap: str = "refuse", **rows: list[dict[str, object]]) -> Path:
    for split, members in rows.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in members))
    files = ", ".join(f"{split}: {split}.jsonl" for split in rows)
    group = "group: who\n" if any("who" in row for members in rows.values() for row in members) else ""
    path = tmp_path / "given.yaml"
    path.write_text(f"name: given\n{group}splits: {{files: {{{files}}}, overlap: {overlap}}}\n")
    return path


def test_given_files_are_kept_as_they_are(tmp_path: Path) -> None:
    path = given_files(
        tmp_path,
        select=[{"prompt": "a", "answer": " 1"}, {"prompt": "b", "answer": " 2"}],
        test=[{"prompt": "c", "answer": " 3"}],
    )
    task = load_task(path)
    assert task.counts == {"select": 2, "test": 1}
    assert [example.prompt for example in task.examples("select")] == ["a", "b"]


@pytest.mark.parametrize(("one", "other"), [("select", "test"), ("train", "test"), ("train", "select")])
def test_given_files_that_overlap_are_refused_naming_both_rows(tmp_path: Path, one: str, other: str) -> None:
    rows = {split: [{"prompt": f"{split}{i}", "answer": " x"} for i in range(4)] for split in SPLITS}
    rows[other][2] = rows[one][1]
    with pytest.raises(TaskError) as raised:
        load_task(given_files(tmp_path, **rows))
    message = str(raised.value)
    assert f"row 3 of {other} and row 2 of {one} have the same prompt and answer" in message
    assert "remove one" in message


def test_given_files_that_share_a_group_are_refused(tmp_path: Path) -> None:
    path = given_files(
        tmp_path,
        select=[{"prompt": "a", "answer": " 1", "who": "x"}],
        test=[{"prompt": "b", "answer": " 2", "who": "y"}, {"prompt": "c", "answer": " 3", "who": "x"}],
    )
    with pytest.raises(TaskError, match="row 2 of test and row 1 of select have the same group 'x'"):
        load_task(path)


def test_an_overlap_that_is_to_be_dropped_leaves_test_whole_and_train_gives_way_first(tmp_path: Path) -> None:
    everywhere, late, early = ({"prompt": prompt, "answer": " x"} for prompt in ("everywhere", "late", "early"))
    own = {split: {"prompt": split, "answer": " x"} for split in SPLITS}
    path = given_files(
        tmp_path,
        "drop",
        train=[everywhere, early, own["train"]],
        select=[own["select"], early, late, everywhere],
        test=[late, own["test"], everywhere],
    )
    task = load_task(path)
    assert {split: [example.prompt for example in task.examples(split)] for split in SPLITS} == {
        "train": ["train"],
        "select": ["select", "early"],
        "test": ["late", "test", "everywhere"],
    }


def test_a_group_in_two_files_is_dropped_from_the_earlier(tmp_path: Path) -> None:
    path = given_files(
        tmp_path,
        "drop",
        select=[{"prompt": "a", "answer": " 1", "who": "x"}, {"prompt": "b", "answer": " 2", "who": "y"}],
        test=[{"prompt": "c", "answer": " 3", "who": "x"}, {"prompt": "d", "answer": " 4", "who": "x"}],
    )
    task = load_task(path)
    assert task.counts == {"select": 1, "test": 2}
    assert [example.group for example in task.examples("select")] == ["y"]


def test_a_smaller_sample_is_part_of_every_larger_one(write_task: Callable[..., Path]) -> None:
    task = load_task(write_task([{"prompt": f"p{i}", "answer": " a"} for i in range(200)]))
    whole = task.examples("test")
    samples = [task.examples("test", limit=limit) for limit in (1, 5, 17, 60, len(whole), 10_000)]
    for smaller, larger in zip(samples, samples[1:], strict=False):
        assert set(smaller) <= set(larger)
    assert [len(sample) for sample in samples] == [1, 5, 17, 60, len(whole), len(whole)]
    assert samples[-1] == whole
    assert task.examples("test", limit=17) == samples[2]


def test_asking_for_what_a_task_has_not_is_refused(write_task: Callable[..., Path]) -> None:
    task = load_task(write_task())
    with pytest.raises(UsageError, match="'dev' is not a split; a task has train, select, test"):
        task.examples("dev")
    with pytest.raises(TaskError, match="made has no train split; give it a share under splits"):
        task.examples("train")
    for limit in (0, -3):
        with pytest.raises(UsageError, match=f"A limit is 1 or more examples, not {limit}"):
            task.examples("test", limit=limit)


def test_the_fingerprint_tells_examples_splits_and_scores_apart(write_task: Callable[..., Path]) -> None:
    first = load_task(write_task()).fingerprint
    assert load_task(write_task()).fingerprint == first
    assert load_task(write_task(score="first_token")).fingerprint != first
    assert load_task(write_task(splits={"select": 0.4, "test": 0.6, "seed": 1})).fingerprint != first
    assert load_task(write_task(prompt="{{ prompt }} ")).fingerprint != first
    assert load_task(write_task(counterfactual="{{ key }} + 1 =")).fingerprint != first
    assert load_task(write_task(category="key")).fingerprint != first


def test_a_task_without_categories_keeps_the_fingerprint_older_runs_know() -> None:
    assert load_task("int-mult").fingerprint == "5508df0a9af579b2cf298cfa15ddaee5"


KINDS = [
    {"prompt": f"{kind} {n}", "answer": " a", "kind": kind}
    for kind, count in (("city", 90), ("sum", 30))
    for n in range(count)
]


def test_a_category_has_no_more_rows_than_the_task_file_says(write_task: Callable[..., Path]) -> None:
    task = load_task(write_task(KINDS, category="kind", per_category=40))
    taken = [example for examples in task.splits.values() for example in examples]
    assert Counter(example.category for example in taken) == {"city": 40, "sum": 30}
    assert load_task(write_task(KINDS, category="kind", per_category=40)).splits == task.splits
    other = load_task(
        write_task(KINDS, category="kind", per_category=40, splits={"select": 0.4, "test": 0.6, "seed": 1})
    )
    assert {example.prompt for examples in other.splits.values() for example in examples} != {e.prompt for e in taken}
    assert max(example.row for example in taken if example.category == "city") > 60  # a sample, and not the first ones


def test_a_bound_that_no_category_reaches_changes_nothing(write_task: Callable[..., Path]) -> None:
    bounded = load_task(write_task(KINDS, category="kind", per_category=90))
    assert bounded.splits == load_task(write_task(KINDS, category="kind")).splits


def test_rows_with_a_blank_category_are_bounded_as_one(write_task: Callable[..., Path]) -> None:
    rows = [{**row, "kind": row["kind"] if row["kind"] == "sum" else (" ", None)[n % 2]} for n, row in enumerate(KINDS)]
    task = load_task(write_task(rows, category="kind", per_category=10))
    taken = Counter(example.category for examples in task.splits.values() for example in examples)
    assert taken == {None: 10, "sum": 10}


def test_a_macro_average_without_categories_is_refused(write_task: Callable[..., Path]) -> None:
    refuse_objective(load_task(write_task()), "average")
    refuse_objective(load_task(write_task(category="key")), "macro")
    with pytest.raises(UsageError, match="made has no categories in its select split, which objective 'macro'"):
        refuse_objective(load_task(write_task()), "macro")
    with pytest.raises(UsageError, match="made is scored by loss alone"):
        refuse_objective(load_task(write_task(category="key", score="perplexity")), "macro")


def same_words(**differing: str) -> list[dict[str, str]]:
    """Rows with one prompt and one answer, and a column in which they differ."""
    (column, values), *_ = differing.items()
    return [{"q": "Is it so?", "a": "yes", column: value} for value in values]


def test_rows_that_differ_in_their_choices_are_several_examples(write_task: Callable[..., Path]) -> None:
    path = write_task(
        same_words(other="abcdefghij"),
        prompt="{{ q }}",
        answer=" {{ a }}",
        choices=[" {{ a }}", " {{ other }}"],
        score="choice",
    )
    assert load_task(path).counts == {"select": 4, "test": 6}


def test_rows_that_differ_in_their_system_message_are_several_examples(write_task: Callable[..., Path]) -> None:
    keys = {"prompt": "{{ q }}", "answer": "{{ a }}", "chat": True}
    path = write_task(same_words(tone="abcdefghij"), system="Be {{ tone }}.", **keys)
    assert load_task(path).counts == {"select": 4, "test": 6}
    alike = write_task([*same_words(tone="abcde"), *same_words(tone="abcde")], system="Be {{ tone }}.", **keys)
    assert load_task(alike).counts == {"select": 2, "test": 3}


def test_the_same_choices_in_another_order_are_the_same_example(write_task: Callable[..., Path]) -> None:
    rows = [
        {"q": f"q{n // 2}", "a": "yes", "one": ("yes", "no")[n % 2], "two": ("no", "yes")[n % 2]} for n in range(20)
    ]
    choices = [" {{ one }}", " {{ two }}"]
    path = write_task(rows, prompt="{{ q }}", answer=" {{ a }}", choices=choices, score="choice")
    assert load_task(path).counts == {"select": 4, "test": 6}


def test_files_with_the_same_words_under_two_system_messages_do_not_overlap(tmp_path: Path) -> None:
    for name, tone in (("select", "kind"), ("test", "brief")):
        rows = [{"prompt": "Is it so?", "answer": "yes", "tone": tone}]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = "name: t\nchat: true\n{}splits: {{files: {{select: select.jsonl, test: test.jsonl}}}}\n"
    (tmp_path / "t.yaml").write_text(text.format("system: '{{ tone }}'\n"))
    assert load_task(tmp_path / "t.yaml").counts == {"select": 1, "test": 1}
    (tmp_path / "t.yaml").write_text(text.format(""))
    with pytest.raises(TaskError, match="row 1 of test and row 1 of select have the same prompt and answer"):
        load_task(tmp_path / "t.yaml")
