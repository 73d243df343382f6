"""A model on plain text: how well it predicts the second half of each window, given the first."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy
from strop.checkpoints import looks_at_images
from strop.errors import UsageError
from strop.scoring.scorer import Scorer
from strop.tasks import Example

WINDOW_TOKENS = 256
"""Tokens of a window, its prompt half included."""

MOST_WINDOWS = 64
"""Windows that are read of a long text, spread evenly over it."""

FEWEST_TOKENS = 8
"""A window of fewer tells nothing."""


def text_scorer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, *, name: str, anatomy: Anatomy
) -> Scorer:
    """Return what scores a text by its perplexity, half of each window given and the other half predicted.

    Args:
        model: a causal language model.
        tokenizer: its fast tokenizer.
        text: some pages.
        name: what to call it in an error.
        anatomy: the model's.

    Raises:
        UsageError: the model does not predict the next token, or the text is too short.
    """
    if looks_at_images(model):
        raise UsageError(f"{name} is a text, and {type(model).__name__} looks at images and reads none; leave it out.")
    window = min(WINDOW_TOKENS, anatomy.context(model))
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    offsets: list[tuple[int, int]] = encoded["offset_mapping"]
    starts = range(0, max(len(offsets) - FEWEST_TOKENS + 1, 0), window)
    if not starts:
        raise UsageError(
            f"{name} has {len(offsets)} tokens, too few to measure perplexity on; give some pages of text."
        )
    step = max(1, -(-len(starts) // MOST_WINDOWS))
    examples = []
    for number, start in enumerate(starts[::step]):
        stop = min(start + window - 1, len(offsets))  # a tokenizer may put one special token before it
        middle = offsets[(start + stop) // 2][0]
        prompt, answer = text[offsets[start][0] : middle], text[middle : offsets[stop - 1][1]]
        examples.append(Example(prompt, answer, row=number + 1))
    return Scorer(model, tokenizer, examples, "perplexity", anatomy=anatomy)
