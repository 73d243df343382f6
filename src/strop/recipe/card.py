"""The model card that travels with a recipe, and with what was made of it: a checkpoint or an adapter."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from huggingface_hub import ModelCardData

from strop.checkpoints import BaseIdentity
from strop.statistics import Answer, Comparison, Drift, Rival, Rivals, interval_from_json, spell_p_value

Form = Literal["recipe", "checkpoint", "adapter"]
"""What a card lies beside: the recipe itself, a checkpoint it was baked into, or the adapter of PEFT's it became."""

_OPENINGS: Mapping[Form, str] = {
    "recipe": "Low-rank interventions on `{name}` ({architecture}), as a Strop recipe:",
    "checkpoint": "An ordinary checkpoint with low-rank interventions baked into its weights:",
    "adapter": "Low-rank interventions on `{name}` ({architecture}), as an adapter of PEFT's:",
}
_LIBRARIES: Mapping[Form, str] = {"recipe": "strop", "checkpoint": "transformers", "adapter": "peft"}


def model_card(
    base: BaseIdentity,
    edits: Sequence[str],
    provenance: Mapping[str, Any],
    *,
    labels: Sequence[str] | None = None,
    form: Form = "recipe",
) -> str:
    """Return a recipe's README.md: what it changes, what it gained, and how to use it.

    Args:
        base: the model it was made for.
        edits: what it does, in lines.
        provenance: how it was made.
        labels: of its classification head; None where it has no head.
        form: what the card lies beside.
    """
    data = ModelCardData(
        base_model=base.id if base.revision is not None else None,  # else it is no hub id
        library_name=_LIBRARIES[form],
        tags=["strop", "low-rank"],
    )
    task = provenance.get("task")
    title = f"{base.name} for {task}" if task else f"{base.name}, edited"
    shots = provenance.get("shots")
    lines = ["---", data.to_yaml(), "---", f"# {title}", ""]
    lines.append(_OPENINGS[form].format(name=base.name, architecture=base.architecture))
    lines += ["", *(f"- {line}" for line in edits), ""]
    if shots:
        lines += [
            f"Each prompt began with examples from the task's train split: {shots['count']} (seed {shots['seed']}).",
            "",
        ]
    lines += _figures(provenance)
    if form != "checkpoint":
        lines += ["```python", "import strop", *_use(base, labels, form), "```", ""]
    return "\n".join(lines)


def _use(base: BaseIdentity, labels: Sequence[str] | None, form: Form) -> list[str]:
    call = "model.generate(...)" if labels is None else "model(**tokenizer(texts, padding=True, ...)).logits"
    if form == "adapter":
        adapted = 'model = PeftModel.from_pretrained(model, "THIS FOLDER")'
        return ["from peft import PeftModel", _loading(base, labels), adapted, call]
    return [_loading(base, labels), 'with strop.applied(model, strop.Recipe.load("THIS FOLDER")):', f"    {call}"]


def _loading(base: BaseIdentity, labels: Sequence[str] | None) -> str:
    if labels is None:
        return f'model, tokenizer = strop.load("{base.name}")'
    return f'model, tokenizer = strop.load_classifier("{base.name}", labels={list(labels) or 1!r})'


def _figures(provenance: Any) -> list[str]:
    rivals = Rivals.from_json(provenance.get("rivals") or {})
    return [*_gain(provenance), *_rivals(rivals), *_price(provenance.get("price") or {})]


def _price(price: Mapping[str, Any]) -> list[str]:
    """Say how far the model is from its base on other text, where that was measured."""
    if not price:
        return []
    if not price.get("drift"):
        return [f"How far it is from the base on other text is not known. {price['reason']}", ""]
    drift = Drift.from_json(price["drift"])
    lines = [f"On other text it {drift.verdict} ({drift}).", ""]
    for each in price.get("continuations", ()) if not drift.identical else ():
        lines += [
            f"- {_quoted(each['prompt'])}",
            f"  - before: {_quoted(each['base'])}",
            f"  - after: {_quoted(each['edited'])}",
        ]
    return lines if len(lines) == 2 else [*lines, ""]


def _gain(provenance: Any) -> list[str]:
    comparison = provenance.get("comparison")
    if not comparison:
        return []
    base, edited = provenance["base"], provenance["edited"]
    low, high = interval_from_json(comparison["ci95"])
    measured = base.get("metric") or ("accuracy" if base.get("accuracy") is not None else "loss")
    return [
        f"On {base['count']} held-out examples the {measured} went from {base[measured]:.4g} to {edited[measured]:.4g}: "
        f"a gain of {comparison['gain']:.4g} (95 % interval {low:.4g} to {high:.4g}, {spell_p_value(comparison['p_value'])}; "
        f"{comparison['fixed']} examples fixed, {comparison['broken']} broken). "
        f"{Comparison.from_json(comparison).verdict}".rstrip(),
        "",
        *_categories(provenance.get("categories")),
    ]


def _categories(averages: Mapping[str, Any] | None) -> list[str]:
    if averages is None:
        return []
    low, high = interval_from_json(averages["macro_ci95"])
    return [
        f"{averages['sentence']} The average {averages['measure']} over categories went from {averages['macro_base']:.4g} to "
        f"{averages['macro_edited']:.4g}: a gain of {averages['macro_gain']:.4g} (95 % interval {low:.4g} to {high:.4g}).",
        "",
    ]


def _rivals(rivals: Rivals) -> list[str]:
    """Return a line for each thing a user would do instead, and one on an answer the edited model has fallen to."""
    if not rivals:
        return []
    lines = [f"- {_rival(name, rival)}" for name, rival in rivals.measured.items()]
    lines += [f"- {_called(name)}: not measured, {reason}" for name, reason in rivals.skipped.items()]
    said = rivals.collapse
    if said is not None:
        lines.append(
            f"- The edited model has collapsed to one answer, {_quoted(said.answer)}: it gives it on a share of "
            f"{said.share:.4g} of the examples, and it is the right answer of {said.right_share:.4g}; the base gives it on "
            f"{said.base_share:.4g}."
        )
    return ["What one would do instead, on the same examples:", "", *lines, ""] if lines else []


def _rival(name: str, rival: Rival) -> str:
    called = f"Always answering {_quoted(rival.answer)}" if rival.answer is not None else _called(name)
    measured, value = rival.metric or ("accuracy", rival.accuracy)
    cost = (
        f", at {rival.tokens_per_request:.4g} tokens a prompt in the place of {rival.edited_tokens_per_request:.4g}"
        if rival.tokens_per_request is not None and rival.edited_tokens_per_request is not None
        else ""
    )
    verdict = "; the edited model is not surely better" if rival.is_as_good else ""
    return f"{called}: {measured} {value:.4g} on {rival.count}{cost}{verdict}."


def _called(name: str) -> str:
    if name == "constant":
        return "One constant answer"
    return f"The base with {name.removeprefix('shots_')} of the train rows in the prompt"


def _quoted(answer: Answer) -> str:
    return f"choice {answer}" if isinstance(answer, int) else "`" + answer.replace("`", "'") + "`"
