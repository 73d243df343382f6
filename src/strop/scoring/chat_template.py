"""A prompt in the words of a tokenizer's chat template."""

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from strop.errors import StropWarning, TaskError, quoted, reason_in
from strop.scoring.place import place_of
from strop.scoring.today import WITH_ONE_MOMENT, spelled_out
from strop.tasks import Example
from strop.tasks.chat import Chat
from strop.tasks.few_shot import shown_text

MARK = "\u241e{}\u241e"
"""Stands for a message where it is seen what a template does with one."""

ASKS_FOR_THE_TIME = "strftime_now"
"""What a template calls whose text changes with the day."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt as a model reads it, and what is written between it and an answer."""

    prompt: str
    lead: str = ""
    """The space with which a chat template begins an answer."""

    def answered_by(self, continuation: str) -> str:
        """Return a continuation behind the prompt; one that has the space has it once."""
        return continuation if continuation.startswith(self.lead) else self.lead + continuation


def asked_of(example: Example, tokenizer: PreTrainedTokenizerBase) -> Asked:
    """Return what is asked of a model, the example's shots included.

    A chat's prompt is given in the words of the tokenizer's template: the messages, with a turn of user and assistant for
    each shot, and the words an assistant's turn begins with.

    Args:
        example: whose prompt it is.
        tokenizer: whose template it is.

    Raises:
        TaskError: the tokenizer has no chat template, or several and none is named, or the template refuses the
            messages, fails on them or leaves out their words.
    """
    chat = example.chat
    if chat is None:
        return Asked(shown_text(example))
    template = template_of(tokenizer, chat)
    said = [
        (role, text) for shot in example.shots for role, text in (("user", shot.prompt), ("assistant", shot.answer))
    ]
    said = [*([] if chat.system is None else [("system", chat.system)]), *said, ("user", example.prompt)]
    form = _form_of(tokenizer, template, tuple(role for role, _ in said), chat.arguments)
    text = _written(tokenizer, template, form.messages(said), chat, ask=True)
    for role, words in said:
        lost = [word for word in words.split() if word not in text] if role == "user" else []
        if lost:
            raise TaskError(
                f"{place_of(example)}: the tokenizer's chat template does not write the prompt's {quoted(lost[0])}; write the "
                "template into prompt: in the place of chat: true."
            )
    return Asked(text, form.lead)


def prompt_of(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return all text before the answer; see `asked_of`.

    Args:
        example: whose prompt it is.
        tokenizer: whose template it is.

    Raises:
        TaskError: the tokenizer's chat template cannot write it.
    """
    asked = asked_of(example, tokenizer)
    return asked.prompt + asked.answered_by(example.answer).removesuffix(example.answer)


def template_of(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """Return the chat template a chat is written in.

    Args:
        tokenizer: whose template it is.
        chat: may name one of several, as the argument `chat_template`.

    Raises:
        TaskError: there is none, or none that is named.
    """
    own = tokenizer.chat_template
    if not own:
        raise TaskError(
            "The task says chat: true, and this model's tokenizer has no chat template; take an instruction-tuned "
            "model, or write the template into prompt:."
        )
    named = chat.template_arguments.get("chat_template")
    if isinstance(own, dict) and (named or "default") not in own:
        first = next(iter(own))
        which = "none called default" if named is None else f"none called {named}"
        raise TaskError(
            f"The tokenizer has the chat templates {', '.join(own)} and {which}; name one in the task file, such as chat: "
            f"{{chat_template: {first}}}."
        )
    return str(tokenizer.get_chat_template(named))


def asks_for_the_time(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Say whether prompts change with the time.

    Args:
        examples: of one task.
        tokenizer: whose template they are written in, where they are chats.
    """
    chats = {example.chat for example in examples if example.chat is not None}
    return any(ASKS_FOR_THE_TIME in template_of(tokenizer, chat) for chat in chats)


@dataclasses.dataclass(frozen=True)
class _Form:
    """How a template takes messages, and what it writes before an answer."""

    in_parts: bool
    """A message is a list of parts, in the place of a text."""
    lead: str = ""

    def messages(self, said: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        return [
            {"role": role, "content": [{"type": "text", "text": text}] if self.in_parts else text}
            for role, text in said
        ]


@functools.lru_cache(maxsize=16)
def _form_of(
    tokenizer: PreTrainedTokenizerBase, template: str, roles: tuple[str, ...], arguments: tuple[tuple[str, Any], ...]
) -> _Form:
    """Return how a template takes messages of these roles: as texts, or else as lists of parts."""
    chat = Chat(arguments=arguments)
    said = [(role, MARK.format(index)) for index, role in enumerate(roles)]
    refused: TaskError | None = None
    left_out = ""
    for form in (_Form(in_parts=False), _Form(in_parts=True)):
        try:
            text = _written(tokenizer, template, form.messages(said), chat, ask=True)
        except TaskError as error:
            refused = refused or error
            continue
        lost = [role for role, mark in said if mark not in text]
        if not lost:
            return dataclasses.replace(form, lead=_lead(tokenizer, template, form, said, chat, text))
        left_out = left_out or lost[0]
    if refused is not None:
        raise refused
    whose = {"system": "what the system says", "user": "the prompt's words"}.get(left_out, "the shots' answers")
    remedy = (
        "leave out system:" if left_out == "system" else "write the template into prompt: in the place of chat: true"
    )
    raise TaskError(f"The tokenizer's chat template does not write {whose}; {remedy}.")


def _lead(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    form: _Form,
    said: Sequence[tuple[str, str]],
    chat: Chat,
    asked: str,
) -> str:
    """Return the space a template writes between what it asks with and an answer.

    Compared is what stands behind the prompt: what stands before it may depend on how many messages there are.
    """
    mark = MARK.format(len(said))
    try:
        messages = form.messages([*said, ("assistant", mark)])
        whole = _written(tokenizer, template, messages, chat, ask=False)
    except TaskError:
        return ""
    prompt = said[-1][1]
    asks, (before, found, _) = asked.rpartition(prompt)[2], whole.rpartition(prompt)[2].partition(mark)
    if not found or prompt not in whole:
        return ""
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(asks, before, strict=False)))
    asks, before = asks[same:], before[same:]
    if before and not asks and before.isspace():
        return before
    if bool(asks.strip()) == bool(before.strip()):  # the same, or two names of who answers
        return ""
    if asks.strip():
        differs = f"asks for an answer with {asks!r}, and writes one without"
    else:
        differs = f"writes {before!r} before an answer, and asks for one without"
    warnings.warn(
        f"The tokenizer's chat template {differs}; where it has an argument for that, give it in the task file, such as chat: "
        "{enable_thinking: false}.",
        StropWarning,
        stacklevel=2,
    )
    return ""


def _written(
    tokenizer: PreTrainedTokenizerBase, template: str, messages: list[dict[str, Any]], chat: Chat, *, ask: bool
) -> str:
    """Return what a template writes, at the moment that is taken for now.

    Raises:
        TaskError: it refuses the messages, or fails on them.
    """
    arguments = {name: value for name, value in chat.template_arguments.items() if name != "chat_template"}
    if ASKS_FOR_THE_TIME in template:
        template, arguments = WITH_ONE_MOMENT + template, {"strop_now": spelled_out(), **arguments}  # type: ignore[dict-item]
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=ask, **arguments
            )
        )
    except jinja2.TemplateError as error:
        has_system = any(message["role"] == "system" for message in messages)
        remedy = "leave out system:" if has_system else "write the template into prompt: in the place of chat: true"
        raise TaskError(f"The tokenizer's chat template refuses the messages: {error}; {remedy}.") from None
    except Exception as error:  # a template is a program somebody else wrote
        raise TaskError(
            f"The tokenizer's chat template fails on the messages ({type(error).__name__}: {reason_in(error)}); correct "
            "tokenizer.chat_template, or write it into prompt: in the place of chat: true."
        ) from None
