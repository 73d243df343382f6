"""Which tokens an edit of hidden states touches, worked out from real tokens and prompt lengths alone."""

import dataclasses
import re
from typing import Literal

import torch
from torch import Tensor

from strop.errors import UsageError

Reach = Literal["counted", "prompt", "all"]
Share = Literal["both", "first", "last"]

_SPELLINGS: "dict[Share, re.Pattern[str]]" = {
    "both": re.compile(r"(?:f(?P<first>\d+)(?:\+(?=l)|$))?(?:l(?P<last>\d+))?", re.ASCII),
    "first": re.compile(r"f(?P<first>\d+)\(\+l(?P<last>\d+)\)", re.ASCII),
    "last": re.compile(r"\(f(?P<first>\d+)\+\)l(?P<last>\d+)", re.ASCII),
}


@dataclasses.dataclass(frozen=True)
class Positions:
    """The tokens of a sequence that are edited: the first and the last few of its prompt, all of its prompt, or all.

    P = {1, …, p} ∪ {n − s + 1, …, n} of a prompt of n tokens; where n < p + s, p gives way to min(p, ⌊n/2⌋) and s to
    min(s, ⌈n/2⌉), and the positions that are cut off are not edited (Wu, Arora et al., ReFT, arXiv 2404.03592, section 4
    and appendix C).

    Padding is never counted and never edited. `all` edits generated tokens too, the others none of them.

    Args:
        first: p, how many tokens from the prompt's beginning.
        last: s, how many tokens up to the prompt's end.
        reach: `counted` takes first and last; `prompt` is every prompt token; `all` is every token.
        share: `first` and `last` leave the other end to another edit, but keep its count for the rule of short prompts.

    Raises:
        UsageError: no token at all, a negative count, counts beside `prompt` or `all`, or a share of less than two ends.

    >>> print(Positions.parse("f7+l7"), *Positions.parse("f7+l7").untied)
    f7+l7 f7(+l7) (f7+)l7
    """

    first: int = 0
    last: int = 0
    reach: Reach = "counted"
    share: Share = "both"

    def __post_init__(self) -> None:
        if self.first < 0 or self.last < 0:
            raise UsageError(f"Positions count tokens from 0 up, not {min(self.first, self.last)}.")
        if (self.reach == "counted") != (self.first + self.last > 0):
            raise UsageError("Positions name at least one token: f7+l7, f5, l1, or prompt or all without a count.")
        if self.share != "both" and not (self.first and self.last):
            raise UsageError("Only positions with a first and a last count have shares, such as f7(+l7).")

    @classmethod
    def parse(cls, text: str) -> "Positions":
        """Return the positions a text such as `f7+l7`, `f5`, `l1`, `prompt` or `all` names.

        Raises:
            UsageError: the text is not of that form.

        >>> Positions.parse("l1")
        Positions(first=0, last=1, reach='counted', share='both')
        """
        word = text.strip().lower()
        if word == "all":
            return cls(reach="all")
        if word == "prompt":
            return cls(reach="prompt")
        for share, spelling in _SPELLINGS.items():
            found = spelling.fullmatch(word)
            if found is not None and any(found.groups()):
                return cls(int(found["first"] or 0), int(found["last"] or 0), share=share)
        raise UsageError(f"'{text}' does not name positions; write them as f7+l7, f5, l1, prompt or all.")

    @property
    def untied(self) -> "tuple[Positions, ...]":
        """The share of the first tokens and that of the last, where there are both; else the positions as they are."""
        if self.share == "both" and self.first and self.last:
            return (dataclasses.replace(self, share="first"), dataclasses.replace(self, share="last"))
        return (self,)

    def chosen(self, index: Tensor, prompt_length: Tensor) -> Tensor:
        """Return which tokens are edited.

        Args:
            index: (batch, tokens), how many real tokens of its sequence come before each; negative for padding.
            prompt_length: (batch,), how many real tokens the sequence's prompt has.

        Returns:
            (batch, tokens), boolean.
        """
        if self.reach == "all":
            return index >= 0
        length = prompt_length[:, None]
        in_prompt = (index >= 0) & (index < length)
        if self.reach == "prompt":
            return in_prompt
        short = length < self.first + self.last
        first = torch.where(short, (length // 2).clamp(max=self.first), self.first)
        last = torch.where(short, ((length + 1) // 2).clamp(max=self.last), self.last)
        from_start, to_end = index < first, index >= length - last
        if self.share == "both":
            return in_prompt & (from_start | to_end)
        return in_prompt & (from_start if self.share == "first" else to_end)

    def __str__(self) -> str:
        if self.reach != "counted":
            return self.reach
        if self.share == "first":
            return f"f{self.first}(+l{self.last})"
        if self.share == "last":
            return f"(f{self.first}+)l{self.last}"
        return "+".join(f"{letter}{count}" for letter, count in (("f", self.first), ("l", self.last)) if count)
