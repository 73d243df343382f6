"""What a user would do instead, a line each, and a verdict where that does as well."""

from strop.report.figures import percent
from strop.statistics import Answer, MostSaid, Rival, Rivals

NUMBERS = {"1": "One", "5": "Five"}


def rival_lines(rivals: Rivals | None, *, figures: bool = True) -> list[str]:
    r"""Return a line for each rival, what base and edited model answer most, and the verdicts; none where there are none.

    Args:
        rivals: of a run or an evaluation.
        figures: give each rival its line; else only those are named that do as well.

    >>> from strop.statistics import Comparison
    >>> shots = Rival(0.27, 2.0, 200, Comparison(-0.117, (-0.17, -0.06), 1e-4, 9, 32), None, 81.0, 9.0)
    >>> print(*rival_lines(Rivals({"shots_5": shots})), sep="\n")
    Rival, 5 examples in the prompt: 27.0 % right of 200, at 81.0 tokens a prompt in the place of 9.0.
    Five examples in the prompt do better (27.0 % against 15.3 %), at 9 times the tokens of a prompt.
    """
    if rivals is None:
        return []
    lines = [_line(name, rival) for name, rival in rivals.measured.items()]
    lines += [f"Rival, {_called(name)}: not measured: {reason}" for name, reason in rivals.skipped.items()]
    lines = [*(lines if figures else []), *_most_said(rivals)]
    lines += [
        _verdict(name, rival, majority=_is_majority(rivals.collapse, rival))
        for name, rival in rivals.measured.items()
        if rival.is_as_good
    ]
    return lines + _collapse(rivals)


def _is_majority(collapse: MostSaid | None, rival: Rival) -> bool:
    """Return whether an answer the edited model has fallen to is the constant one, or begins it."""
    if collapse is None or rival.answer is None:
        return False
    said, constant = str(collapse.answer).strip(), str(rival.answer).strip()
    return bool(said) and constant.startswith(said)


def _called(name: str, answer: Answer | None = None) -> str:
    if name == "constant":
        return "one constant answer" if answer is None else f"always answering {_quoted(answer)}"
    count = name.removeprefix("shots_")
    return f"{count} example{'' if count == '1' else 's'} in the prompt"


def _quoted(answer: Answer) -> str:
    return f"choice {answer}" if isinstance(answer, int) else repr(answer)


def _figure(rival: Rival) -> str:
    if rival.metric is not None and rival.metric[0] != "accuracy":
        return f"{rival.metric[1]:.4f} of {rival.metric[0]} on {rival.count}"
    return f"{percent(rival.accuracy)} right of {rival.count}"


def _line(name: str, rival: Rival) -> str:
    cost = ""
    if rival.tokens_per_request is not None:
        cost = f", at {rival.tokens_per_request:.1f} tokens a prompt"
        if rival.edited_tokens_per_request is not None:
            cost += f" in the place of {rival.edited_tokens_per_request:.1f}"
    macro = f", {percent(rival.macro)} as an average over categories" if rival.macro is not None else ""
    return f"Rival, {_called(name, rival.answer)}: {_figure(rival)}{macro}{cost}."


def _verdict(name: str, rival: Rival, *, majority: bool) -> str:
    who = _called(name, rival.answer)
    count, _, rest = who.partition(" ")
    many = name != "constant" and count != "1"
    who = f"{NUMBERS.get(count, count)} {rest}" if name != "constant" else who[:1].upper() + who[1:]
    if rival.metric is not None and rival.metric[0] != "accuracy":
        own, unit = rival.metric[1], f" of {rival.metric[0]}"
        figures = f"{own:.4f} against {own + rival.comparison.gain:.4f}{unit}"
    else:
        own = rival.accuracy or 0.0
        figures = f"{percent(own)} against {percent(own + rival.comparison.gain)}"
    how = "better" if rival.is_better else "as well" if rival.comparison.gain <= 0 else "perhaps as well"
    end = ": the edit learned the majority class" if majority else ""
    times = rival.times_the_tokens
    if times is not None:
        end = f", at {times:.{0 if times >= 2 else 1}f} times the tokens of a prompt"
    return f"{who} {'do' if many else 'does'} {how} ({figures}){end}."


def _most_said(rivals: Rivals) -> list[str]:
    shown = {"base": "before", "edited": "after"}
    told = []
    for name, said in rivals.answers.items():
        how_often = f"{percent(said.share)} of the examples, the right answer of {percent(said.right_share)}"
        told.append(f"{_quoted(said.answer)} {shown[name]} ({how_often})")
    return [f"Most frequent answer: {', '.join(told)}."] if told else []


def _collapse(rivals: Rivals) -> list[str]:
    said: MostSaid | None = rivals.collapse
    if said is None:
        return []
    return [
        f"The edited model has collapsed to one answer: it gives {_quoted(said.answer)} on {percent(said.share)} of the "
        f"examples, and it is the right answer of {percent(said.right_share)}; the base gives it on {percent(said.base_share)}."
    ]
