"""What the components say that a rank reduction removed: a model with only the smallest of them, asked what the edit fixed."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family, WeightSite
from strop.errors import UsageError
from strop.findings import AnswerByShare, RemovedComponents, ShareKept, write_removed
from strop.interventions import Decompose, RankReduction, SingularValuePruning, applied_interventions
from strop.linalg import DecompositionCache
from strop.progress import SILENT, Progress
from strop.recipe import Recipe, applied
from strop.scoring import greedy_continuations, scorer_of
from strop.statistics import mean_interval
from strop.tasks import Example, Task
from strop.tasks.examples import group_indices

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
KEPT_ANSWERS = 24
LONGEST_ANSWER = 5
"""Tokens that are compared of an answer."""


def removed_components(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    recipe: Recipe,
    *,
    site: WeightSite | None = None,
    shares: Sequence[float] = SHARES,
    split: str = "test",
    limit: int | None = 200,
    run: str | Path | None = None,
    family: Family | None = None,
    decompose: Decompose | None = None,
    progress: Progress = SILENT,
) -> RemovedComponents:
    """Ask a model of which one matrix has only its smallest components (LASER, arXiv 2312.13558, section 5.2, Figure 5).

    W ← Σ_{i ≥ n − k} σ_i u_i v_iᵀ, k = round(share · n), everything else as it was. The examples are those that the recipe
    fixed; where it fixed none, the first ones. An answer's place is the mean of its tokens' rows of the input embeddings, less
    the mean of all rows; the similarity is the cosine of what is said and what is right. The paper does not say
    which embedding it uses.

    Args:
        model: as it is without the recipe; it is left so.
        tokenizer: its fast tokenizer.
        task: that the recipe is for, whose answers are written.
        recipe: with a rank reduction.
        site: the matrix to look at, where the recipe reduces several.
        shares: of the components, the smallest ones, to keep, each above 0 and at most 1, ascending.
        split: train, select or test.
        limit: look for fixed examples in a random sample of this many.
        run: the folder of a run to keep the result in, where a report shows it.
        family: the spelling of an architecture Strop does not know.
        decompose: how to come by decompositions; the cache on disk by default.
        progress: told of each share.

    Raises:
        UsageError: the recipe reduces no matrix, or several and none is named; a share is out of range; or the task's answers
            are labels.
    """
    edit = _reduction_of(recipe, site)
    if not shares or any(not 0 < share <= 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise UsageError(f"Shares of the components are above 0 and at most 1, ascending, not {tuple(shares)}.")
    if task.labels is not None:
        raise UsageError(f"Task {task.name} has labels, and what removed components say is read in words.")
    anatomy, decompose = Anatomy.of(model, family=family), decompose or DecompositionCache()
    matrix = anatomy.read_weight(model, edit.site)
    count = min(matrix.shape[0], matrix.shape[1])
    every = task.examples(split, limit=limit)
    fixed = _fixed(model, tokenizer, task, every, recipe, anatomy, family)
    examples = fixed or list(every[:KEPT_ANSWERS])
    asked = _Asked(model, tokenizer, examples)
    progress.start("asking the removed components", len(shares) + 1)
    with applied(model, recipe, family=family):
        edited = float(asked.similarity(asked.answers()).mean())
    progress.advance()
    found, said = [], []
    for share in shares:
        dropped = tuple(range(count - max(1, round(share * count))))
        only = [SingularValuePruning(edit.site, dropped)] if dropped else []
        with applied_interventions(model, only, anatomy=anatomy, decompose=decompose) if only else nullcontext():
            said.append(asked.answers())
        found.append(_kept_of(asked, share, said[-1]))
        progress.advance()
    result = RemovedComponents(
        matrix=str(edit.site),
        rank=edit.rank((matrix.shape[0], matrix.shape[1])),
        full_rank=count,
        examples=len(examples),
        fixed=bool(fixed),
        edited_similarity=edited,
        shares=tuple(found),
        answers=tuple(
            AnswerByShare(
                prompt=example.prompt, wanted=example.answer.strip(), said=tuple(own[index].strip() for own in said)
            )
            for index, example in enumerate(examples[:KEPT_ANSWERS])
        ),
    )
    if run is not None:
        write_removed(Path(run), result)
    return result


def _kept_of(asked: "_Asked", share: float, answers: list[str]) -> ShareKept:
    """Return how near to what is right the answers of a share of the components are."""
    near = asked.similarity(answers)
    right = [asked.is_right(example, answer) for example, answer in zip(asked.examples, answers, strict=True)]
    low, high = mean_interval(near, group_indices(asked.examples))
    bounds = max(low, -1.0), min(high, 1.0)
    return ShareKept(share=float(share), similarity=float(near.mean()), ci95=bounds, right=float(np.mean(right)))


def _reduction_of(recipe: Recipe, site: WeightSite | None) -> RankReduction:
    reductions = [entry for entry in recipe.interventions if isinstance(entry, RankReduction)]
    if not reductions:
        raise UsageError(
            "The recipe reduces no matrix to a lower rank, so no components were removed: give one of a search."
        )
    chosen = [entry for entry in reductions if site is None or entry.site == site]
    if len(chosen) != 1:
        named = ", ".join(str(entry.site) for entry in reductions)
        raise UsageError(f"The recipe reduces {named}: name one of them as site.")
    if chosen[0].subspaces > 1:
        raise UsageError(
            f"{chosen[0].site} was parted into {chosen[0].subspaces} subspaces, so what was removed is no singular value of "
            "it: give a recipe of a search with --subspaces 1."
        )
    return chosen[0]


def _fixed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    examples: Sequence[Example],
    recipe: Recipe,
    anatomy: Anatomy,
    family: Family | None,
) -> list[Example]:
    """Return the examples that are wrong without the recipe and right with it."""
    scorer = scorer_of(model, tokenizer, task, examples, anatomy=anatomy)
    before = scorer.evaluate().correct
    with applied(model, recipe, family=family):
        after = scorer.evaluate().correct
    if before is None or after is None:
        return []
    return [examples[index] for index in np.flatnonzero(after & ~before).tolist()]


class _Asked:
    """Examples, and where their right answers lie among the input embeddings.

    Args:
        model: to be asked as often as its weights change.
        tokenizer: its own.
        examples: to ask.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> None:
        self._model, self._tokenizer, self.examples = model, tokenizer, examples
        rows = model.get_input_embeddings().weight.detach()
        self._rows, self._centre = rows, rows.double().mean(0)
        lengths = [len(self._ids(example.answer)) for example in examples]
        self._tokens = min(max(lengths), LONGEST_ANSWER)
        self._right = torch.stack([self._place(example.answer) for example in examples])

    def answers(self) -> list[str]:
        """Return what the model as it stands writes after each prompt."""
        return greedy_continuations(self._model, self._tokenizer, self.examples, tokens=self._tokens)

    def similarity(self, answers: Sequence[str]) -> NDArray[np.float64]:
        """Return the cosine of each answer with what is right, (examples,), of as many tokens as the right answer has."""
        said = torch.stack(
            [
                self._place(answer, most=len(self._ids(example.answer)))
                for example, answer in zip(self.examples, answers, strict=True)
            ]
        )
        near = torch.nn.functional.cosine_similarity(said, self._right, dim=1)
        found: NDArray[np.float64] = near.cpu().numpy()
        return found

    def is_right(self, example: Example, answer: str) -> bool:
        """Return whether an answer begins with what is right."""
        return answer.strip().startswith(example.answer.strip())

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _place(self, text: str, *, most: int = LONGEST_ANSWER) -> Tensor:
        ids = self._ids(text)[: min(most, LONGEST_ANSWER)]
        if not ids:
            return torch.zeros_like(self._centre)
        place: Tensor = self._rows[ids].double().mean(0) - self._centre
        return place
