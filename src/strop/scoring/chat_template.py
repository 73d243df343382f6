"""A prompt in the words of a tokenizer's chat template."""

import jinja2
from transformers import PreTrainedTokenizerBase

from strop.errors import TaskError
from strop.tasks import Example
from strop.tasks.few_shot import shown_text


def prompt_of(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return all text before the answer, the example's shots included.

    A chat's prompt is given in the words of the tokenizer's template: the messages, with a turn of user and assistant for
    each shot, and the words an assistant's turn begins with.

    Args:
        example: whose prompt it is.
        tokenizer: whose template it is.

    Raises:
        TaskError: the tokenizer has no chat template, or the template refuses the messages.
    """
    if example.chat is None:
        return shown_text(example)
    if not tokenizer.chat_template:
        raise TaskError(
            "The task says chat: true, and this model's tokenizer has no chat template; take an instruction-tuned "
            "model, or write the template into prompt:."
        )
    system = [] if example.chat.system is None else [{"role": "system", "content": example.chat.system}]
    turns = [
        {"role": role, "content": content}
        for shot in example.shots
        for role, content in (("user", shot.prompt), ("assistant", shot.answer))
    ]
    messages = [*system, *turns, {"role": "user", "content": example.prompt}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:
        remedy = "leave out system:" if system else "write the template into prompt: in the place of chat: true"
        raise TaskError(f"The tokenizer's chat template refuses the messages: {error}; {remedy}.") from None
    return str(text)
