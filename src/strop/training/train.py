"""Learn edits for a task, and prove the gain on held-out examples."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.checkpoints import takes_names
from strop.errors import UsageError
from strop.proving import Assignment, DriftText, RunOptions, RunOutcome, RunSettings, conduct
from strop.proving.processes import join_processes
from strop.tasks import TaskSource, load_task, refuse_objective
from strop.training.fitter import Fitter
from strop.training.plan import TrainPlan


@takes_names
def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSource,
    plan: TrainPlan | None = None,
    options: RunOptions | None = None,
) -> RunOutcome:
    """Learn edits of hidden states inside low-rank subspaces, or of weights, and prove the gain on held-out examples.

    Φ(h) = h + Rᵀ(W h + b − R h) at chosen layers and prompt positions, for LoReFT, with all of the model's own weights
    frozen (Wu, Arora et al., ReFT, arXiv 2404.03592). The train split teaches; after each epoch the select split is scored
    and the best epoch chosen, "no edit" included; the test split is scored once for the base and once for the chosen
    recipe, after the choice is made. A classifier's head is trained beside the edits, and the recipe carries it. The model
    is left as it was.

    Where torchrun started several processes, each reads batches of its own, whose gradients
    are added up; the first writes the run, and all return what it found.

    Args:
        model: a causal language model, or a classifier where the task has labels, with nothing attached;
            its name or folder stands for it and its tokenizer.
        tokenizer: its fast tokenizer; of a classifier of images, its image processor.
        task: a task, or what `load_task` takes, with a train split.
        plan: the settings.
        options: where to begin, what to spend and where to write. With a recipe to begin with, the one that comes out holds
            its interventions first; where the plan names subspaces to train that its edits have, these learn on.

    Raises:
        RunError: the run folder is in use, is being worked on, or was begun with other settings.
        InterventionError: something is attached to the model, or the edits do not fit it.
        BaseMismatchError: the recipe to begin with was made for another model.
        TaskError: a row does not fit the model, or there is no train split.
        SiteError: the model has no such layer.
        TrainingError: the loss became NaN; the best edits so far are kept in the run folder's `best`.
        UsageError: a rank is above the hidden size, there is nothing to resume, the model is not of the kind the task is
            for, the task lacks the categories that `macro` averages over, or drift would be measured on the text that the
            edits keep to.

    >>> import strop
    >>> model, tokenizer = strop.load("smollm2-135m")  # doctest: +SKIP
    >>> result = strop.train(model, tokenizer, strop.load_task("int-sum"))  # doctest: +SKIP
    """
    task = load_task(task)
    plan, options = plan or TrainPlan(), options or RunOptions()
    refuse_objective(task, plan.objective)
    if plan.keep_text is not None:
        _refuse_to_measure_on(plan.keep_text, options)
    together = join_processes(model.device)
    if together and model.device.type == "cuda":
        model.to(torch.device("cuda", torch.cuda.current_device()))  # each process has a device of its own
    with options.in_force():
        fitter = Fitter(Assignment.of(model, tokenizer, task, options), plan)
        settings = RunSettings.of("train", plan, together=together)
        return conduct(fitter, settings, options)


def _refuse_to_measure_on(text: DriftText, options: RunOptions) -> None:
    """Raise UsageError if what the edits keep to is what their price, or a guard, is measured on."""
    measures = [guard.measure.fingerprint for guard in options.guards]
    if any(found.endswith(text.fingerprint) for found in (options.drift_text.fingerprint, *measures)):
        raise UsageError(
            f"{text.name} is what the edits keep to, and drift or a guard would be measured on it too; give it once."
        )
