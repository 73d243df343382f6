"""Prompt and answer as tokens: the border is where the text says, whatever the tokenizer does there."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example as always_try
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, processors

from strop.errors import TaskError
from strop.scoring import Scorer
from strop.scoring.encoding import Batch, TokenSequence, batches_of, encode
from strop.scoring.resources import CPU
from strop.tasks import Example

TEXT = st.text(st.sampled_from("The city of Lyon 12=é日本🙂\n ß"), min_size=1, max_size=24)


def only(prompt: str, answer: str, tokenizer: Any, score: Any = "exact", longest: int = 128) -> Any:
    (sequence,) = encode([Example(prompt, answer, row=7)], tokenizer, score, longest=longest)
    return sequence


def members_of(batch: Batch) -> list[int]:
    return list(dict.fromkeys(batch.sequences))


def first_ids(tokenizer: Any, labels: tuple[str, ...]) -> set[int]:
    return {tokenizer(label)["input_ids"][0] for label in labels}


@settings(max_examples=200, deadline=None)
@given(prompt=TEXT, answer=TEXT)
@always_try(prompt="The city of Lyo", answer="n is")
@always_try(prompt="日", answer="本")
@always_try(prompt="Lyon é", answer="é")
def test_a_token_belongs_to_the_answer_as_soon_as_one_of_its_bytes_does(
    small_tokenizer: Any, prompt: str, answer: str
) -> None:
    ids = small_tokenizer(prompt + answer)["input_ids"]
    sizes = [len(token) for token in small_tokenizer.convert_ids_to_tokens(ids)]  # one letter a byte
    assert sum(sizes) == len((prompt + answer).encode())
    border = len(prompt.encode())
    expected = next(index for index in range(len(ids)) if sum(sizes[: index + 1]) > border)
    if expected == 0:
        with pytest.raises(TaskError, match="no token before the answer"):
            only(prompt, answer, small_tokenizer)
    else:
        sequence = only(prompt, answer, small_tokenizer)
        assert (list(sequence.ids), sequence.first_scored) == (ids, expected)


def test_a_token_that_spans_the_border_is_scored_with_the_answer(small_tokenizer: Any) -> None:
    prompt, answer = "The city of Lyo", "n is"
    alone = small_tokenizer(prompt)["input_ids"]
    sequence = only(prompt, answer, small_tokenizer)
    assert list(sequence.ids[: len(alone)]) != alone  # so counting the prompt's own tokens would miss the border
    assert small_tokenizer.decode(sequence.ids[sequence.first_scored :]) == " Lyon is"


def test_offsets_that_leave_out_leading_spaces_move_no_border(changed: Callable[..., Any]) -> None:
    trimming = changed(post_processor=processors.ByteLevel(trim_offsets=True))
    sequence = only("The city of Lyon is in", " France", trimming)
    assert trimming.decode(sequence.ids[sequence.first_scored :]) == " France"
    sequence = only("The city of Lyon is in ", "France", trimming)
    assert trimming.decode(sequence.ids[sequence.first_scored :]).strip() == "France"


def test_a_token_put_before_the_text_is_kept_and_never_scored(changed: Callable[..., Any]) -> None:
    tokenizer = changed(template="<|end|> $A")
    sequence = only("The city of Lyon is in", " France", tokenizer)
    assert sequence.ids[0] == 0
    assert tokenizer.decode(sequence.ids[sequence.first_scored :]) == " France"


def test_a_token_put_after_the_text_is_dropped(changed: Callable[..., Any], small_tokenizer: Any) -> None:
    both, plain = changed(template="<|end|> $A <|end|> <|end|>"), small_tokenizer
    sequence = only("The city of Lyon is in", " France", both)
    assert list(sequence.ids) == [0, *plain("The city of Lyon is in France")["input_ids"]]
    assert both.decode(sequence.ids[sequence.first_scored :]) == " France"


def test_a_special_token_that_is_written_in_the_answer_is_scored(small_tokenizer: Any) -> None:
    sequence = only("1 + 2 =", " 3<|end|>", small_tokenizer)
    assert sequence.ids[-1] == 0
    assert small_tokenizer.decode(sequence.ids[sequence.first_scored :]) == " 3<|end|>"


def test_each_choice_becomes_a_sequence_of_its_own(small_tokenizer: Any) -> None:
    examples = [Example("1 + 2 =", " 3", choices=(" 3", " 144")), Example("2 x 2 =", " 4", choices=(" 5", " 4", " 6"))]
    found = encode(examples, small_tokenizer, "choice", longest=128)
    assert [(entry.owner, entry.choice) for entry in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert [small_tokenizer.decode(entry.ids[entry.first_scored :]) for entry in found] == [
        " 3", " 144", " 5", " 4", " 6",
    ]  # fmt: skip


def test_labels_of_the_first_token_leave_one_sequence_a_row_the_answers(small_tokenizer: Any) -> None:
    examples = [
        Example("1 + 2 =", " 2", choices=(" 1", " 2")),
        Example("2 x 2 =", " 3"),
        Example("3 x 1 =", " 3", choices=(" 3", " 12")),
    ]
    found = encode(examples, small_tokenizer, "first_token", longest=128)
    bare = [dataclasses.replace(example, choices=None) for example in examples]
    expected = encode(bare, small_tokenizer, "first_token", longest=128)
    assert [(entry.ids, entry.first_scored, entry.owner) for entry in found] == [
        (entry.ids, entry.first_scored, entry.owner) for entry in expected
    ]


def test_labels_that_begin_with_the_same_token_are_refused_by_row_labels_and_token(small_tokenizer: Any) -> None:
    good = Example("The city of Lyon", " is", choices=(" is", " and"), row=3)
    alike = Example("The city of Lyon", " entails", choices=(" is", " entails", " never"), row=4)
    said = (
        r"^row 4 \(prompt 'The city of Lyon'\): the choices ' entails' and ' never' begin with the same token 'Ġ', and "
        r"score: first_token cannot tell them apart; reword one, or use score: choice\.$"
    )
    with pytest.raises(TaskError, match=said):
        encode([good, alike], small_tokenizer, "first_token", longest=128)
    assert len(encode([good, alike], small_tokenizer, "choice", longest=128)) == 5


def test_labels_are_told_apart_as_they_stand_behind_their_prompt(small_tokenizer: Any) -> None:
    alike_alone = Example("The city of L", "yon", choices=("yon", "y is"))
    assert len(first_ids(small_tokenizer, ("yon", "y is"))) == 1
    assert len(encode([alike_alone], small_tokenizer, "first_token", longest=128)) == 1
    alike_behind = Example("x 4", "4", choices=("4", "44"))
    assert len(first_ids(small_tokenizer, ("4", "44"))) == 2
    with pytest.raises(TaskError, match="the choices '4' and '44' begin with the same token '44'"):
        encode([alike_behind], small_tokenizer, "first_token", longest=128)


def test_a_token_before_every_text_is_no_labels_first(changed: Callable[..., Any]) -> None:
    labels = (" entails", " contradicts", " is neutral")
    for template in ("<|end|> $A", "<|end|> $A <|end|>"):
        tokenizer = changed(template=template)
        assert len(first_ids(tokenizer, labels)) == 1  # counting from the front, all labels would be one
        examples = [Example("The premise", label, choices=labels) for label in labels]
        found = encode(examples, tokenizer, "first_token", longest=128)
        firsts = [tokenizer.convert_ids_to_tokens(entry.ids[entry.first_scored]) for entry in found]
        assert firsts == ["Ġ", "Ġc", "Ġis"]


def test_a_prompt_that_melts_into_the_answer_is_refused_by_row(small_tokenizer: Any) -> None:
    assert len(small_tokenizer("The")["input_ids"]) == 1
    with pytest.raises(TaskError, match=r"row 7 \(prompt 'T'\): the prompt has no token before the answer 'he'; give"):
        only("T", "he", small_tokenizer)


def test_an_answer_the_tokenizer_drops_is_refused_by_row(changed: Callable[..., Any]) -> None:
    dropping = changed(normalizer=normalizers.Replace("~", ""))
    with pytest.raises(TaskError, match=r"row 7 .*the answer '~' has no token of its own; drop the row"):
        only("The city", "~", dropping)


def test_a_row_longer_than_the_context_is_refused_by_row_and_length(small_tokenizer: Any) -> None:
    length = len(small_tokenizer("The city of Lyon is in France")["input_ids"])
    assert len(only("The city of Lyon is in", " France", small_tokenizer, longest=length).ids) == length
    said = rf"row 7 .*{length} tokens do not fit the model's context of {length - 1}; shorten the row"
    with pytest.raises(TaskError, match=said):
        only("The city of Lyon is in", " France", small_tokenizer, longest=length - 1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_the_context_is_the_models_own(tiny: Callable[..., Any], small_tokenizer: Any, family: str) -> None:
    with pytest.raises(TaskError, match="do not fit the model's context of 128"):
        Scorer(tiny(family), small_tokenizer, [Example("q" * 150, " a", row=3)], "exact")


def test_a_long_prompt_is_quoted_in_short(small_tokenizer: Any) -> None:
    with pytest.raises(TaskError) as raised:
        only("q" * 150, " a", small_tokenizer)
    assert len(str(raised.value)) < 160


def test_perplexity_of_a_text_without_a_prompt_scores_all_but_its_first_token(
    small_tokenizer: Any, changed: Callable[..., Any]
) -> None:
    assert only("", "The city of Lyon", small_tokenizer, "perplexity").first_scored == 1
    with_start = only("", "The city of Lyon", changed(template="<|end|> $A"), "perplexity")
    assert with_start.first_scored == 1
    assert len(with_start.ids) == 1 + len(small_tokenizer("The city of Lyon")["input_ids"])


def test_perplexity_of_one_token_alone_is_refused(small_tokenizer: Any) -> None:
    with pytest.raises(TaskError, match="one token alone has nothing to be predicted from; drop the row"):
        only("", "The", small_tokenizer, "perplexity")


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=40), first=st.booleans()
)
def test_batches_hold_every_sequence_once_and_keep_their_bounds(
    small_tokenizer: Any, lengths: list[tuple[int, int]], first: bool
) -> None:
    score = "first_token" if first else "exact"
    examples = [Example("é" * prompt, "日" * answer) for prompt, answer in lengths]
    sequences = encode(examples, small_tokenizer, score, longest=10**6)
    batches = batches_of(sequences, score, device=torch.device("cpu"))
    assert sorted(member for batch in batches for member in members_of(batch)) == list(range(len(sequences)))
    for batch in batches:
        assert len(members_of(batch)) == 1 or batch.input_ids.numel() <= CPU.batch_tokens
        assert len(members_of(batch)) == 1 or len(batch.targets) <= CPU.scored_positions
        for row, member in enumerate(members_of(batch)):
            sequence = sequences[member]
            ids = batch.input_ids[row].tolist()
            mine = batch.rows == row
            wanted = sequence.ids[sequence.first_scored :][: 1 if first else None]
            fed = sequence.first_scored + len(wanted) - 1  # the last scored token is predicted and never read
            assert ids[:fed] == list(sequence.ids[:fed])
            assert set(ids[fed:]) <= {0}
            assert batch.real[row].tolist() == [position < fed for position in range(len(ids))]
            assert batch.targets[mine].tolist() == list(wanted)
            assert batch.columns[mine].tolist() == [sequence.first_scored - 1 + i for i in range(len(wanted))]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 120)), min_size=1, max_size=25),
    fewest=st.integers(1, 4),
    score=st.sampled_from(["exact", "first_token"]),
)
def test_no_batch_is_smaller_than_asked_for_while_there_are_others(
    lengths: list[tuple[int, int]], fewest: int, score: Any
) -> None:
    sequences = [
        TokenSequence(tuple(range(1, prompt + answer + 1)), prompt, owner, 0)
        for owner, (prompt, answer) in enumerate(lengths)
    ]
    batches = batches_of(sequences, score, device=torch.device("cpu"), fewest=fewest)
    assert sorted(member for batch in batches for member in members_of(batch)) == list(range(len(sequences)))
    assert min(len(members_of(batch)) for batch in batches) >= min(fewest, len(sequences))
    for batch in batches:  # a bound is broken only where so many would not be had otherwise
        assert len(members_of(batch)) < 2 * fewest or batch.input_ids.numel() <= CPU.batch_tokens
        assert len(members_of(batch)) < 2 * fewest or len(batch.targets) <= CPU.scored_positions


def test_choices_that_differ_in_their_last_token_are_read_once(small_tokenizer: Any) -> None:
    lyon = Example("The city of Lyon is in", " 1", choices=(" 1", " 2", " 3", " France is", " France", " Brazil is"))
    other = Example("The city of Lyon is not in", " 1", choices=(" 1", " 2"))
    sequences = encode([lyon, lyon, other], small_tokenizer, "choice", longest=128)
    batches = batches_of(sequences, "choice", device=torch.device("cpu"))
    by_row = [
        {index for index, row in zip(batch.sequences, batch.rows.tolist(), strict=True) if row == wanted}
        for batch in batches
        for wanted in range(batch.input_ids.shape[0])
    ]
    assert sorted(map(sorted, by_row)) == [[0, 1, 2, 3, 4], [5], [6, 7, 8, 9, 10], [11], [12, 13]]


def test_an_answer_that_another_example_shares_is_read_for_each(small_tokenizer: Any) -> None:
    sequences = encode([Example("Lyon is in", " France")] * 2, small_tokenizer, "exact", longest=128)
    (batch,) = batches_of(sequences, "exact", device=torch.device("cpu"))
    assert batch.input_ids.shape[0] == 2


# Counterfactuals: another prompt of as many tokens


LYON = "The city of Lyon is in"


def paired(example: Example, tokenizer: Any, score: Any = "exact") -> Any:
    return encode([example], tokenizer, score, longest=128, counterfactuals=True)


@pytest.mark.parametrize("template", [None, "<|end|> $A", "<|end|> $A <|end|>"])
def test_a_counterfactual_is_encoded_as_its_prompt_is_and_keeps_the_answer(
    changed: Callable[..., Any], template: str | None
) -> None:
    tokenizer = changed(template=template)
    other = "The city of Paris is in"
    (sequence,) = paired(Example(LYON, " France", counterfactual=other), tokenizer)
    assert sequence == dataclasses.replace(
        only(LYON, " France", tokenizer), counterfactual_ids=only(other, " France", tokenizer).ids
    )


def test_every_choice_is_paired_with_the_same_choice(small_tokenizer: Any) -> None:
    choices = (" France", " Brazil is", " the city")
    example = Example(LYON, " France", choices=choices, counterfactual="The city of Paris is in")
    found = paired(example, small_tokenizer, "choice")
    assert [small_tokenizer.decode(sequence.counterfactual_ids) for sequence in found] == [
        f"The city of Paris is in{choice}" for choice in choices
    ]


def test_a_batch_is_fed_as_much_of_each_counterfactual_as_of_its_prompt(small_tokenizer: Any) -> None:
    examples = [
        Example("1 + 2 =", " 3 and 12 x 12", counterfactual="2 + 1 ="),
        Example("The capital of France is", " Paris", counterfactual="The capital of Brazil is"),
    ]
    sequences = encode(examples, small_tokenizer, "exact", longest=128, counterfactuals=True)
    (batch,) = batches_of(sequences, "exact", device=torch.device("cpu"))
    assert batch.counterfactual_ids is not None
    assert batch.counterfactual_ids.shape == batch.input_ids.shape
    for row, member in enumerate(members_of(batch)):
        sequence, real = sequences[member], batch.real[row]
        assert batch.counterfactual_ids[row][real].tolist() == list(sequence.counterfactual_ids[:-1])
        assert batch.counterfactual_ids[row][~real].tolist() == [0] * int((~real).sum())
    plain = encode(examples, small_tokenizer, "exact", longest=128)
    assert batches_of(plain, "exact", device=torch.device("cpu"))[0].counterfactual_ids is None


def test_a_missing_counterfactual_is_refused_by_row_with_the_remedy(small_tokenizer: Any) -> None:
    with pytest.raises(TaskError) as raised:
        paired(Example(LYON, " France", row=7), small_tokenizer)
    assert str(raised.value) == (
        f"row 7 (prompt '{LYON}'): it has no counterfactual; give the task file a template in counterfactual:."
    )


def test_a_counterfactual_of_another_length_is_refused_by_row_with_both_lengths(small_tokenizer: Any) -> None:
    with pytest.raises(TaskError) as raised:
        paired(Example(LYON, " France", row=7, counterfactual="The capital of France is" * 30), small_tokenizer)
    assert str(raised.value) == (
        f"row 7 (prompt '{LYON}'): its counterfactual 'The capital of France isThe capital of …' has "
        f"{len(small_tokenizer('The capital of France is' * 30)['input_ids'])} tokens and the prompt 6; activations are "
        "swapped token by token, so make them of one length or drop the row."
    )


def test_a_counterfactual_that_meets_the_answer_elsewhere_is_refused(small_tokenizer: Any) -> None:
    """Alone both prompts have five tokens; before this answer the last of one melts into it."""
    prompt, other, answer = "The city of Lyo", "The city of Lyq", "n is"
    assert len(small_tokenizer(prompt)["input_ids"]) == len(small_tokenizer(other)["input_ids"]) == 5
    said = "has {} tokens and the prompt {}; activations"
    with pytest.raises(TaskError, match=said.format(5, 3)):
        paired(Example(prompt, answer, counterfactual=other), small_tokenizer)
    with pytest.raises(TaskError, match=said.format(3, 5)):
        paired(Example(other, answer, counterfactual=prompt), small_tokenizer)


def test_a_counterfactual_after_which_the_answer_has_more_tokens_is_refused(small_tokenizer: Any) -> None:
    """Three tokens lie wholly in either prompt, and " Lyon" is one where "yon" after " of" is two."""
    with pytest.raises(TaskError, match="has 6 tokens and the prompt 5, the answer included; activations"):
        paired(Example("The city of L", "yon is", counterfactual="The city of"), small_tokenizer)
