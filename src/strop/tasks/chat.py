"""That a prompt is a user's message, and what the chat template is told besides."""

import dataclasses
from collections.abc import Mapping

ChatArgument = bool | int | float | str | None
OWN_ARGUMENTS = ("add_generation_prompt", "continue_final_message", "conversation", "messages", "tokenize")
"""What Strop tells every chat template itself."""


@dataclasses.dataclass(frozen=True)
class Chat:
    """That a prompt is a user's message, with what the system says before it.

    >>> Chat(arguments=(("enable_thinking", False),)).template_arguments
    {'enable_thinking': False}
    """

    system: str | None = None
    arguments: tuple[tuple[str, ChatArgument], ...] = ()
    """What the template is told besides the messages, by name, in the order of the names."""

    @property
    def template_arguments(self) -> dict[str, ChatArgument]:
        """What the template is told besides the messages, as keyword arguments of `apply_chat_template`."""
        return dict(self.arguments)


def in_order(arguments: Mapping[str, ChatArgument]) -> tuple[tuple[str, ChatArgument], ...]:
    """Return arguments of a chat template in the order of their names, so that equal ones are equal however they are written."""
    return tuple(sorted(arguments.items(), key=lambda argument: argument[0]))
