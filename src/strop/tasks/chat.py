"""A prompt in the words of a tokenizer's chat template."""

import dataclasses

import jinja2
from transformers import PreTrainedTokenizerBase

from strop.errors import TaskError


@dataclasses.dataclass(frozen=True)
class Chat:
    """That a prompt is a user's message, with what the system says before it."""

    system: str | None = None

    def in_template(self, prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return all text before the answer: the messages, and the words an assistant's turn begins with.

        Args:
            prompt: what the user says.
            tokenizer: whose template it is.

        Raises:
            TaskError: the tokenizer has no chat template, or the template refuses the messages.
        """
        if not tokenizer.chat_template:
            raise TaskError(
                "The task says chat: true, and this model's tokenizer has no chat template; take an instruction-tuned "
                "model, or write the template into prompt:."
            )
        said = [] if self.system is None else [{"role": "system", "content": self.system}]
        try:
            text = tokenizer.apply_chat_template(
                [*said, {"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            remedy = "leave out system:" if said else "write the template into prompt: in the place of chat: true"
            raise TaskError(f"The tokenizer's chat template refuses the messages: {error}; {remedy}.") from None
        return str(text)
