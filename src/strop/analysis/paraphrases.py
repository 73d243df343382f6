"""Ask a model each fact in all its wordings, as it was and with a recipe on."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family
from strop.errors import TaskError
from strop.findings import FactInWords, write_paraphrases
from strop.progress import SILENT, Progress
from strop.recipe import Recipe, applied
from strop.scoring import scorer_of, wordings_of
from strop.tasks import Task
from strop.tasks.examples import group_indices


def facts_in_words(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    recipe: Recipe,
    *,
    split: str = "test",
    limit: int | None = None,
    run: str | Path | None = None,
    family: Family | None = None,
    progress: Progress = SILENT,
) -> tuple[FactInWords, ...]:
    """Ask each fact in all its wordings, before and after (paraphrase robustness: LASER, arXiv 2312.13558, section 5.1).

    `strop.findings.paraphrase_robustness` counts what is returned.

    Args:
        model: as it is without the recipe; it is left so.
        tokenizer: its fast tokenizer.
        task: with a `paraphrases` column.
        recipe: whose effect is asked for.
        split: train, select or test.
        limit: ask a random sample of this many facts.
        run: the folder of a run to keep the answers in, where a report shows them.
        family: the spelling of an architecture Strop does not know.
        progress: told of each batch.

    Raises:
        TaskError: the task has no paraphrases, or is scored by loss alone.
    """
    examples = task.examples(split, limit=limit)
    asked = [len(example.paraphrases) + 1 for example in examples]
    if sum(asked) == len(examples):
        raise TaskError(f"Task {task.name} has no paraphrases; name their column under paraphrases: in the task file.")
    anatomy = Anatomy.of(model, family=family)
    scorer = scorer_of(model, tokenizer, task, wordings_of(examples), anatomy=anatomy)
    progress.start(f"asking {task.name}/{split} in other words", 2 * scorer.steps)
    before = scorer.evaluate(progress=progress).correct
    if before is None:
        raise TaskError(f"Task {task.name} is scored by loss alone, so no paraphrase is right or wrong.")
    with applied(model, recipe, family=family):
        after = scorer.evaluate(progress=progress).correct
    assert after is not None  # scored as before
    facts, start = [], 0
    for example, count, group in zip(examples, asked, group_indices(examples).tolist(), strict=True):
        own = slice(start, start + count)
        facts.append(
            FactInWords(row=example.row, group=group, before=(*before[own].tolist(),), after=(*after[own].tolist(),))
        )
        start += count
    if run is not None:
        write_paraphrases(Path(run), facts)
    return tuple(facts)
