"""Two rows of unequal lengths with scored tokens, as a scorer would hand them on, and each row alone."""

from collections.abc import Callable
from typing import Any

import torch
from tests.conformance.suite import ANSWERS, PROMPTS, TEXTS, Subject, batch_of
from torch import Tensor

from strop.scoring import Batch


def scored_batch(subject: Subject) -> tuple[Batch, list[Callable[[], Tensor]]]:
    """Return a batch, and what gives the logits of each of its rows alone."""
    head = subject.member.head
    if head == "seq2seq":
        start = subject.model.config.decoder_start_token_id
        begun = [(start, *answer[:-1]) for answer in ANSWERS]
        places = [(row, step) for row in range(2) for step in range(len(ANSWERS[row]))]
        targets = [ANSWERS[row][step] for row, step in places]
        given, beside = PROMPTS, {"decoder_input_ids": batch_of(begun, "right")["input_ids"]}
        decoded: list[dict[str, Tensor]] = [{"decoder_input_ids": torch.tensor([ids])} for ids in begun]
    else:
        places = [(row, len(PROMPTS[row]) - 1 + step) for row in range(2) for step in range(len(ANSWERS[row]))]
        targets = [TEXTS[row][column + 1] for row, column in places]
        given, beside = (TEXTS if head == "masked" else tuple(text[:-1] for text in TEXTS)), {}
        decoded = [{}, {}]
    padded = batch_of(given, "right")
    if head in ("masked", "seq2seq"):
        beside["attention_mask"] = padded["attention_mask"]
    batch = Batch(
        input_ids=padded["input_ids"],
        rows=torch.tensor([row for row, _ in places]),
        columns=torch.tensor([column for _, column in places]),
        targets=torch.tensor(targets),
        sequences=tuple(row for row, _ in places),
        prompt_lengths=torch.tensor([len(prompt) for prompt in PROMPTS]),
        beside=beside,
    )

    def alone(row: int) -> Callable[[], Any]:
        return lambda: subject.call(torch.tensor([given[row]]), **decoded[row]).logits[0]

    return batch, [alone(0), alone(1)]
