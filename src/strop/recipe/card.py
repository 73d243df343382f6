"""The model card that travels with a recipe and with a baked checkpoint."""

from typing import Any

from huggingface_hub import ModelCardData

from strop.recipe.document import Recipe
from strop.wording import in_words, p_in_words


def model_card(recipe: Recipe, *, baked: bool = False) -> str:
    """Return a recipe's README.md: what it changes, what it gained, and how to use it.

    Args:
        recipe: what was made.
        baked: the card is for a checkpoint the recipe was baked into.
    """
    data = ModelCardData(
        base_model=recipe.base.id if recipe.base.revision is not None else None,  # else it is no hub id
        library_name="transformers" if baked else "strop",
        tags=["strop", "low-rank"],
    )
    task = recipe.provenance.get("task")
    title = f"{recipe.base.id} for {task}" if task else f"{recipe.base.id}, edited"
    lines = ["---", data.to_yaml(), "---", f"# {title}", ""]
    lines.append(
        "An ordinary checkpoint with low-rank interventions baked into its weights:"
        if baked
        else f"Low-rank interventions on `{recipe.base.id}` ({recipe.base.architecture}), as a Strop recipe:"
    )
    lines += ["", *(f"- {line}" for line in in_words(recipe.describe(), head=recipe.describe_head())), ""]
    lines += _figures(recipe.provenance)
    if not baked:
        lines += [
            "```python",
            "import strop",
            _loading(recipe),
            'with strop.applied(model, strop.Recipe.load("THIS FOLDER")):',
            "    model.generate(...)"
            if recipe.head is None
            else "    model(**tokenizer(texts, padding=True, ...)).logits",
            "```",
            "",
        ]
    return "\n".join(lines)


def _loading(recipe: Recipe) -> str:
    if recipe.head is None:
        return f'model, tokenizer = strop.load("{recipe.base.id}")'
    labels = list(recipe.head.labels) or 1
    return f'model, tokenizer = strop.load_classifier("{recipe.base.id}", labels={labels!r})'


def _figures(provenance: Any) -> list[str]:
    comparison = provenance.get("comparison")
    if not comparison:
        return []
    base, edited = provenance["base"], provenance["edited"]
    low, high = comparison["ci95"]
    measured = base.get("metric") or ("accuracy" if base.get("accuracy") is not None else "loss")
    return [
        f"On {base['count']} held-out examples the {measured} went from {base[measured]:.4g} to {edited[measured]:.4g}: "
        f"a gain of {comparison['gain']:.4g} (95 % interval {low:.4g} to {high:.4g}, {p_in_words(comparison['p_value'])}; "
        f"{comparison['fixed']} examples fixed, {comparison['broken']} broken).",
        "",
    ]
