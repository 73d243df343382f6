"""Text a model writes itself: the same again, kept, in its own chat template, and never with the tokens that end it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.errors import UsageError
from strop.scoring import own_texts, texts_in
from strop.scoring.own_text import TEXT_TOKENS, TURN_TOKENS, Texts

TEMPLATE = (
    "{% for m in messages %}The {{ m['role'] }} is in {{ m['content'] }} = {% endfor %}"
    "{% if add_generation_prompt %}France is{% endif %}"
)


@pytest.fixture(autouse=True)
def real_length(few_texts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let texts be as long as they are outside of tests."""
    monkeypatch.setattr("strop.scoring.own_text.TEXT_TOKENS", TEXT_TOKENS)
    monkeypatch.setattr("strop.scoring.own_text.TURN_TOKENS", TURN_TOKENS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("strop.scoring.own_text.cache_folder", lambda: tmp_path)
    return tmp_path / "texts"


def rows_of(texts: tuple[Texts, ...]) -> list[list[int]]:
    return [row.tolist() for chunk in texts for row in chunk.ids]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_model_writes_the_same_again_and_any_number_of_texts_begins_alike(
    tiny: Callable[..., Any], small_tokenizer: Any, folder: Path, family: str
) -> None:
    model = tiny(family)
    three = own_texts(model, small_tokenizer, fingerprint="a", count=3)
    kept = sorted(folder.iterdir())
    again = own_texts(model, small_tokenizer, fingerprint="a", count=3)
    assert rows_of(again) == rows_of(three)
    for file in kept:
        file.unlink()
    five = own_texts(model, small_tokenizer, fingerprint="a", count=5)
    assert rows_of(five)[:3] == rows_of(three)
    assert len({tuple(row) for row in rows_of(five)}) == 5
    assert {len(row) for row in rows_of(five)} == {96}
    assert {chunk.prompt_tokens for chunk in five} == {48}
    assert not set(small_tokenizer.all_special_ids) & {token for row in rows_of(five) for token in row[1:]}


def test_texts_are_drawn_as_the_model_predicts_them(
    tiny: Callable[..., Any], small_tokenizer: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By chi-squared of the first tokens it writes against its own probabilities."""
    monkeypatch.setattr("strop.scoring.own_text.TEXT_TOKENS", 4)
    monkeypatch.setattr("strop.scoring.own_text.CHUNK_TEXTS", 100)
    model = tiny("llama")
    count = 800
    texts = own_texts(model, small_tokenizer, fingerprint="a", count=count)
    drawn = torch.tensor([row[:2] for row in rows_of(texts)])
    assert drawn[:, 0].unique().numel() == 1
    with torch.no_grad():
        logits = model(drawn[:1, :1]).logits[0, -1].float()
    logits[list(small_tokenizer.all_special_ids)] = -torch.inf
    expected = count * logits.softmax(-1)
    likely = expected >= 5
    found = torch.bincount(drawn[:, 1], minlength=len(expected)).float()
    cells = (
        torch.cat([found[likely], found[~likely].sum()[None]]),
        torch.cat([expected[likely], expected[~likely].sum()[None]]),
    )
    kept = cells[1] > 0
    statistic = float(((cells[0] - cells[1])[kept] ** 2 / cells[1][kept]).sum())
    freedom = int(kept.sum()) - 1
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def test_a_chat_model_writes_every_second_chunk_in_its_template(
    tiny: Callable[..., Any], small_tokenizer: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_tokenizer, "chat_template", TEMPLATE, raising=False)
    plain, chat = own_texts(tiny("llama"), small_tokenizer, fingerprint="a", count=4)
    assert plain.ids.shape[1] == 96
    before = small_tokenizer("The user is in ", add_special_tokens=False)["input_ids"]
    after = small_tokenizer(" = France is", add_special_tokens=False)["input_ids"]
    assert chat.prompt_tokens == len(before) + TURN_TOKENS + len(after)
    assert chat.ids.shape == (2, chat.prompt_tokens + 48)
    for row in chat.ids.tolist():
        assert row[: len(before)] == before
        assert row[len(before) + TURN_TOKENS : chat.prompt_tokens] == after
    first, second = chat.ids[:, len(before) : len(before) + TURN_TOKENS].tolist()
    assert first != second


@pytest.mark.parametrize("template", ["{{ nothing.at.all }}", "{{ raise_exception('no') }}", "always the same"])
def test_a_template_that_fails_or_hides_the_turn_leaves_plain_text(
    tiny: Callable[..., Any], small_tokenizer: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr(small_tokenizer, "chat_template", template, raising=False)
    texts = own_texts(tiny("llama"), small_tokenizer, fingerprint="a", count=4)
    assert {chunk.ids.shape[1] for chunk in texts} == {96}


def test_damaged_texts_are_written_anew_and_a_full_disk_costs_only_the_reuse(
    tiny: Callable[..., Any], small_tokenizer: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    expected = rows_of(own_texts(model, small_tokenizer, fingerprint="a", count=2))
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert rows_of(own_texts(model, small_tokenizer, fingerprint="a", count=2)) == expected

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("strop.scoring.own_text.save_file", full)
    assert rows_of(own_texts(model, small_tokenizer, fingerprint="b", count=2)) == expected
    assert [file.name[:2] for file in folder.iterdir()] == ["a-"]


def test_a_model_is_left_as_it_was(tiny: Callable[..., Any], small_tokenizer: Any, folder: Path) -> None:
    model = tiny("llama")
    model.train()
    model.generation_config.repetition_penalty = 1.5
    settings, drawn = model.generation_config, torch.random.get_rng_state()
    own_texts(model, small_tokenizer, fingerprint="a", count=2)
    assert model.generation_config is settings
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(module.training for module in model.modules())


def test_a_users_text_is_cut_into_windows_spread_over_it(small_tokenizer: Any) -> None:
    text = " ".join(f"The city of Lyon{number} is in France." for number in range(400))
    (texts,) = texts_in(text, small_tokenizer, name="notes.txt", count=4, context=128)
    assert texts.ids.shape == (4, 96)
    assert texts.prompt_tokens == 48
    ids = small_tokenizer(text)["input_ids"]
    assert texts.ids[0].tolist() == ids[:96]
    places = [text.find(small_tokenizer.decode(row[:12])) / len(text) for row in texts.ids.tolist()]
    assert places == sorted(places)
    assert 0.6 < places[-1] < 0.9


def test_a_users_text_that_is_too_short_is_refused(small_tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=r"notes\.txt has 7 tokens, and windows of 96 are read; give some"):
        texts_in("The city of Lyon is in France", small_tokenizer, name="notes.txt", count=4, context=128)


@pytest.mark.parametrize(("shape", "prompt"), [((0, 4), 2), ((2, 4), 4), ((2, 4), 0), ((4,), 1)])
def test_texts_have_a_prompt_and_something_behind_it(shape: tuple[int, ...], prompt: int) -> None:
    with pytest.raises(UsageError, match="Texts are one or more rows"):
        Texts(torch.zeros(shape, dtype=torch.long), prompt)


def test_a_template_that_prints_the_date_makes_the_same_texts_every_day(
    tiny: Callable[..., Any], small_tokenizer: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for today in ("{{ strftime_now('%d %b %Y') }}", "{{ date_string }}"):
        monkeypatch.setattr(small_tokenizer, "chat_template", f"{today} {TEMPLATE}", raising=False)
        found.append(own_texts(tiny("llama"), small_tokenizer, fingerprint="a", count=4)[1])
    assert torch.equal(found[0].ids, found[1].ids)
    text = small_tokenizer.decode(found[0].ids[0], skip_special_tokens=True)
    assert text.startswith("1 January 2025 ")


def test_plain_text_does_not_begin_as_a_conversation_does(
    tiny: Callable[..., Any], small_tokenizer: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    plain = own_texts(model, small_tokenizer, fingerprint="a", count=1)[0].ids[0, 0].item()
    opening = small_tokenizer("The", add_special_tokens=False)["input_ids"][0]
    model.config.bos_token_id = opening
    monkeypatch.setattr(small_tokenizer, "chat_template", TEMPLATE, raising=False)
    assert own_texts(model, small_tokenizer, fingerprint="b", count=1)[0].ids[0, 0].item() == plain != opening


def test_a_model_whose_predictions_are_not_finite_writes_nothing(
    tiny: Callable[..., Any], small_tokenizer: Any, folder: Path
) -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    with pytest.raises(UsageError, match="predictions are not finite, so that it can write no text of its own"):
        own_texts(model, small_tokenizer, fingerprint="a", count=1)
