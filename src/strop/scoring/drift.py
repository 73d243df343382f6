"""How far an edit moves a model from its base: both read the same texts, and their predictions are compared."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, evaluating, hidden_states_entering, input_device, logits_at, storage_of
from strop.checkpoints import fetched
from strop.errors import UsageError
from strop.interventions import prompt_lengths
from strop.scoring.encoding import vocabulary_of
from strop.scoring.forms import writes
from strop.scoring.own_text import Texts
from strop.scoring.resources import Resources
from strop.statistics import Drift, mean_interval

HEAD_ROWS = 16_384
"""Of the LM head's weight that are widened to float32 at once."""


class DriftScorer:
    """Texts read by the base once, ready to be read by the model as often as its edits change.

    Of the base only hidden states are kept: what leaves its last block at the places that are compared, and, where an edit
    is known to begin at a layer, what enters that layer. The norm and the LM head make logits of them again.

    Args:
        model: as it is before any edit; it is read at once.
        texts: the prompt part of each is read, and the tokens behind it are compared.
        anatomy: the model's.
        source: who wrote the texts: `base`, or the name of a file.
        lowest: the lowest layer anything edits; what lies below is read once.

    Raises:
        UsageError: the model does not predict the next token, or does not know a token of the texts.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        texts: Sequence[Texts],
        *,
        anatomy: Anatomy,
        source: str = "base",
        lowest: int = 0,
    ) -> None:
        if not writes(model, anatomy):
            raise UsageError(f"{type(model).__name__} does not predict the next token, and drift is measured on that.")
        self._model, self._anatomy, self._source = model, anatomy, source
        newest, known = max(int(chunk.ids.max()) for chunk in texts), vocabulary_of(model)
        if newest >= known:
            raise UsageError(
                f"The text drift is measured on has a token {newest}, and the model knows {known}; load the tokenizer that "
                "belongs to the model."
            )
        resources = Resources.of(model)
        self._positions = resources.scored_positions
        self._batches = [
            Texts(rows.to(input_device(model)), chunk.prompt_tokens)
            for chunk in texts
            for rows in torch.split(chunk.ids, max(1, resources.batch_tokens // chunk.ids.shape[1]))
        ]
        bytes_entering = self.tokens * anatomy.hidden_size * model.dtype.itemsize
        self._lowest = lowest if bytes_entering <= resources.state_bytes else 0
        self._entering: list[Tensor | None] = []
        self._base: list[Tensor] = []
        with torch.inference_mode(), evaluating(model):
            for batch in self._batches:
                state = self._reach(batch, self._lowest, start=0, state=None) if self._lowest else None
                self._entering.append(state)
                self._base.append(self._leaving(batch, state).cpu())

    @property
    def tokens(self) -> int:
        """Tokens of one whole reading."""
        return sum(batch.ids.numel() for batch in self._batches)

    @property
    def reads_learning_as_applied(self) -> bool:
        """Whether edits that learn read as they do when they are applied, which in a narrow dtype rounds them."""
        return self._model.dtype in (torch.float32, torch.float64)

    @property
    def _text_of_place(self) -> NDArray[np.int64]:
        """The text of each place that is compared, in their order."""
        places = [batch.ids.shape[1] - batch.prompt_tokens for batch in self._batches for _ in batch.ids]
        return np.repeat(np.arange(len(places)), places)

    def read(self) -> Drift:
        """Return how far the model, as it stands, is from its base.

        KL(base ‖ edited) = Σ_v p(v) (log p(v) − log q(v)), averaged over tokens, from logits in float32 whatever the
        model's dtype. Of a model that nothing changed it is exactly 0.
        """
        return self._drift_of(self._leaving)

    def read_unedited(self) -> Drift:
        """Return what `read` says of the base, which no block need run for: it has been read."""
        states = iter(self._base)
        return self._drift_of(lambda batch, _: next(states).to(batch.ids.device))

    @torch.inference_mode()
    def _drift_of(self, leaving: Callable[[Texts, Tensor | None], Tensor]) -> Drift:
        """Return how far a model is from the base, of which is known what leaves its last block."""
        changed = base_loss = edited_loss = 0.0
        divergences: list[Tensor] = []
        with evaluating(self._model):
            for batch, state, base in zip(self._batches, self._entering, self._base, strict=True):
                edited = leaving(batch, state)
                targets = batch.ids[:, batch.prompt_tokens :].flatten()
                for start in range(0, len(targets), self._positions):
                    part = slice(start, start + self._positions)
                    log_p, log_q = (
                        log_probabilities(self._model, self._anatomy, left.flatten(0, 1)[part].to(edited.device))
                        for left in (base, edited)
                    )
                    wanted = targets[part].to(log_p.device)[:, None]
                    divergences.append((log_p.exp() * (log_p - log_q)).sum(-1).cpu().double())
                    changed += int((log_p.argmax(-1) != log_q.argmax(-1)).sum())
                    base_loss -= _total(log_p.gather(-1, wanted))
                    edited_loss -= _total(log_q.gather(-1, wanted))
        each = torch.cat(divergences).numpy()
        count, kl = len(each), float(each.mean())
        return Drift(
            kl=max(kl, 0.0) if math.isfinite(kl) else math.nan,
            kl_ci95=mean_interval(each, self._text_of_place) if math.isfinite(kl) else None,
            changed=changed / count,
            perplexity=_exp(base_loss / count),
            perplexity_ratio=_exp((edited_loss - base_loss) / count),
            texts=sum(len(batch.ids) for batch in self._batches),
            tokens=count,
            source=self._source,
        )

    def _leaving(self, batch: Texts, state: Tensor | None) -> Tensor:
        """Return what leaves the last block at the places whose next token is compared, (texts, places, hidden)."""
        start = self._lowest if state is not None else 0
        left = self._reach(batch, self._anatomy.layer_count, start=start, state=state)
        return left[:, batch.prompt_tokens - 1 : -1]

    def _reach(self, batch: Texts, layer: int, *, start: int, state: Tensor | None) -> Tensor:
        with prompt_lengths([batch.prompt_tokens] * len(batch.ids)):
            return hidden_states_entering(self._model, self._anatomy, batch.ids, layer=layer, start=start, state=state)


def log_probabilities(model: PreTrainedModel, anatomy: Anatomy, left: Tensor) -> Tensor:
    """Return log p of every token of the vocabulary, (places, vocabulary) in float32, from what left the last block.

    Args:
        model: a causal language model; its norm and LM head are run, and no block.
        anatomy: of that model.
        left: (places, hidden).
    """
    places = torch.arange(len(left), device=input_device(model))
    ids, first = torch.zeros_like(places)[:, None], torch.zeros_like(places)  # no block runs: any token ids do
    with prompt_lengths([1] * len(left)), head_in_float32(model):
        logits = logits_at(model, anatomy, ids, places, first, start=anatomy.layer_count, state=left[:, None])
    return logits.float().log_softmax(-1)


@contextlib.contextmanager
def head_in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Let the LM head of a model in half precision, or under autocast, compute its logits in float32 for a `with` block.

    Rounded to bfloat16 they differ by some hundredths of a nat, more than a small edit changes them.
    """
    head = model.get_output_embeddings()
    device = input_device(model).type
    stored = storage_of(model, head, "weight")
    is_plain = type(head) is nn.Linear and (stored is None or stored.kind == "offloaded")
    if not is_plain or (head.weight.dtype == torch.float32 and not torch.is_autocast_enabled(device)):
        yield
        return

    def widely(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            given = arguments[0].float()
            parts = torch.split(fetched(head, "weight", head.weight), HEAD_ROWS)
            logits = torch.cat([nn.functional.linear(given, part.to(given)) for part in parts], dim=-1)
            return logits if head.bias is None else logits + fetched(head, "bias", head.bias).to(logits)

    handle = head.register_forward_hook(widely)
    try:
        yield
    finally:
        handle.remove()


def _total(values: Tensor) -> float:
    """Return a sum, over the vocabulary in the values' own precision and over places in float64."""
    return float(values.sum(-1).cpu().double().sum())


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
