"""How each kind of model reads a prompt and its answer."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy
from strop.errors import UsageError
from strop.scoring.forms.causal import CAUSAL, CausalForm
from strop.scoring.forms.masked import MaskedForm
from strop.scoring.forms.paired import PairedForm
from strop.scoring.forms.sequence import Row, TokenSequence
from strop.tasks.task_file import Score

Form = CausalForm | MaskedForm | PairedForm

__all__ = ["CAUSAL", "CausalForm", "Form", "MaskedForm", "PairedForm", "Row", "TokenSequence", "form_of", "writes"]


def writes(model: PreTrainedModel, anatomy: Anatomy) -> bool:
    """Return whether a model predicts the next token of any text, and so can write text of its own.

    Args:
        model: any.
        anatomy: the model's.
    """
    return model.get_output_embeddings() is not None and anatomy.family.causal


def form_of(
    model: PreTrainedModel, anatomy: Anatomy, tokenizer: PreTrainedTokenizerBase, score: Score
) -> CausalForm | MaskedForm | PairedForm:
    """Return how a model reads the examples of a task.

    Args:
        model: a causal language model, an encoder that fills masks, or an encoder-decoder.
        anatomy: the model's.
        tokenizer: the model's.
        score: the task's.

    Raises:
        UsageError: the model says nothing that can be scored so, the tokenizer has no mask token, or the model does not say what
            its decoder starts with.
    """
    if score == "label":
        raise UsageError(
            "score: label is a classifier's, and this reads next tokens; score the task with strop.evaluate."
        )
    if model.config.is_encoder_decoder and model.get_output_embeddings() is not None:
        return PairedForm.of(model)
    if writes(model, anatomy):
        return CAUSAL
    name = type(model).__name__
    if model.get_output_embeddings() is None:
        raise UsageError(
            f"{name} does not predict the next token, and score: {score} needs that; load a causal language "
            "model with strop.load, or give the task score: label."
        )
    if score in ("perplexity", "generate"):
        raise UsageError(
            f"{name} fills masks and writes no text, which score: {score} needs; give the task score: exact or "
            "first_token, or load a causal language model."
        )
    if tokenizer.mask_token_id is None:
        raise UsageError(f"{name} fills masks, and its tokenizer has no mask token; load the tokenizer it came with.")
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    return MaskedForm(int(tokenizer.mask_token_id), int(pad) if pad is not None else 0)
