"""What a component sees instead of its input: every effect again by hand, text by text, without batches or padding.

By hand a component is moved towards its counterfactual by a number of its own at each token, and autograd is asked how
the loss answers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import UsageError
from strop.linalg import decompose
from strop.scoring import Resources, Scorer
from strop.searching import EffectPlan, Effects, measure_effects
from strop.searching.averages import mean_inputs
from strop.tasks import Example

pytestmark = pytest.mark.thorough

COUNTERFACTUALS = ["zero", "mean", "roll", "pairs"]
REDUCTIONS = ["sum", "max", "mean-abs"]
EXAMPLES = [  # no two of one length
    Example("The city of Lyon is in", " France and the city", counterfactual="The city of Paris is in"),
    Example("1 + 2 =", " 3", counterfactual="2 + 1 ="),
    Example("The capital of Brazil is", " Brasilia", counterfactual="The capital of France is"),
    Example("The capital of France is", " Paris and", counterfactual="The city of Curitiba is"),
]
SAME_LENGTH = [
    Example(f"The city of {name} is in", answer, counterfactual="The capital of Brazil is in")
    for name, answer in [
        ("Lyon", " France"),
        ("Curitiba", " Brazil"),
        ("Paris", " France"),
        ("Brasilia", " Brazil"),
        ("France", " Lyon"),
    ]
]
AtTokens = list[dict[WeightSite, Tensor]]


class Text(NamedTuple):
    """An example as tokens: what the model reads, what it must say at which position, and what it might have read."""

    read: list[int]
    said: dict[int, int]
    other: list[int]


def text_of(tokenizer: Any, example: Example) -> Text:
    prompt, answer = tokenizer(example.prompt)["input_ids"], tokenizer(example.answer)["input_ids"]
    assert tokenizer(example.prompt + example.answer)["input_ids"] == prompt + answer
    other = tokenizer(example.counterfactual or example.prompt)["input_ids"]
    assert len(other) == len(prompt)
    said = {len(prompt) + index - 1: token for index, token in enumerate(answer)}
    return Text((prompt + answer)[:-1], said, (other + answer)[:-1])


def inputs_seen(model: Any, sites: Sequence[WeightSite], ids: Sequence[int]) -> dict[WeightSite, Tensor]:
    """What each matrix is given for a text, (tokens, in)."""
    seen: dict[WeightSite, Tensor] = {}

    def keep(site: WeightSite) -> Callable[..., None]:
        return lambda module, arguments: seen.update({site: arguments[0][0]})

    anatomy = Anatomy.of(model)
    handles = [anatomy.module(model, site).register_forward_pre_hook(keep(site)) for site in sites]
    with torch.no_grad():
        model(torch.tensor([list(ids)]))
    for handle in handles:
        handle.remove()
    return seen


def answers_to_moving(
    model: Any, sites: Sequence[WeightSite], text: Text, changes: Mapping[WeightSite, Tensor], embeddings: Tensor
) -> dict[WeightSite, Tensor]:
    """∂L/∂θ, (tokens, rank), with y ← y + Σ_i θ_ti σ_i u_i (v_i · Δx_t) at the first tokens, for which there is a Δx."""
    moves, handles = {}, []
    anatomy = Anatomy.of(model)
    for site in sites:
        found = decompose(anatomy.read_weight(model, site))
        steps = changes[site] @ found.vh.T * found.singular_values
        moves[site] = torch.zeros_like(steps, requires_grad=True)

        def move(
            _: Any, arguments: Any, output: Tensor, u: Tensor = found.u, moved: Tensor = steps * moves[site]
        ) -> Any:
            return output + torch.nn.functional.pad(moved @ u.T, (0, 0, 0, output.shape[1] - moved.shape[0]))

        handles.append(anatomy.module(model, site).register_forward_hook(move))
    log_p = model(inputs_embeds=embeddings[None]).logits[0].log_softmax(-1)
    loss = -torch.stack([log_p[position, token] for position, token in text.said.items()]).mean()
    gradients = torch.autograd.grad(loss, list(moves.values()))
    for handle in handles:
        handle.remove()
    return dict(zip(moves, gradients, strict=True))


def effects_by_hand(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    sites: Sequence[WeightSite],
    counterfactual: str,
    *,
    steps: int = 1,
    partners: Sequence[int] | None = None,
) -> AtTokens:
    """The effects at each example's tokens on its own loss; rolled, an example is given its partner's inputs."""
    texts = [text_of(tokenizer, example) for example in examples]
    embed = lambda ids: model.get_input_embeddings()(torch.tensor(ids)).detach()  # noqa: E731
    seen = [inputs_seen(model, sites, text.read) for text in texts]
    found: AtTokens = []
    for index, text in enumerate(texts):
        real = embed(text.read)
        match counterfactual:
            case "zero":
                others, start = {site: torch.zeros_like(seen[index][site]) for site in sites}, torch.zeros_like(real)
            case "mean":
                others = {
                    site: torch.cat([one[site] for one in seen]).mean(0).expand_as(seen[index][site]) for site in sites
                }
                start = torch.cat([embed(other.read) for other in texts]).mean(0).expand_as(real)
            case "roll":
                order = sorted(range(len(texts)), key=lambda which: len(texts[which].read))
                partner = order[order.index(index) - 1] if partners is None else partners[index]
                both = min(len(text.read), len(texts[partner].read))
                others = {site: seen[partner][site][:both] for site in sites}
                start = torch.cat([embed(texts[partner].read)[:both], real[both:]])
            case _:
                others, start = inputs_seen(model, sites, text.other), embed(text.other)
        changes = {site: others[site] - seen[index][site][: len(others[site])] for site in sites}
        points = [start + (real - start) * step / steps for step in range(1, steps + 1)]
        answers = [answers_to_moving(model, sites, text, changes, point) for point in points]
        found.append({site: torch.stack([answer[site] for answer in answers]).mean(0) for site in sites})
    return found


def reduced(at_tokens: AtTokens, site: WeightSite, reduction: str) -> Tensor:
    """The mean over examples of the summed effects; or the largest, or the mean size, over all tokens of all examples."""
    every = torch.cat([effects[site] for effects in at_tokens])
    if reduction == "max":
        return every.max(0).values
    return every.abs().mean(0) if reduction == "mean-abs" else every.sum(0) / len(at_tokens)


def scorer_of(model: Any, tokenizer: Any, examples: Sequence[Example], **settings: Any) -> Scorer:
    return Scorer(model, tokenizer, examples, "exact", **settings)


def measured(scorer: Scorer, sites: Sequence[WeightSite], **settings: Any) -> dict[WeightSite, Effects]:
    return measure_effects(scorer, sites, decompose=decompose, plan=EffectPlan(**settings))


def assert_close(found: Tensor, expected: Tensor, site: WeightSite) -> None:
    size = float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=1e-4 * size, rtol=0, msg=lambda said: f"{site}: {said}")
    assert size > 1e-7


@pytest.fixture
def model(tiny: Callable[..., Any]) -> Any:
    return tiny("llama").double()


@pytest.mark.parametrize(("steps", "layers"), [(1, [0, 2]), (3, [0]), (3, [1])])
@pytest.mark.parametrize("counterfactual", COUNTERFACTUALS)
def test_effects_and_scores_are_those_found_by_hand(
    model: Any, small_tokenizer: Any, counterfactual: Any, steps: int, layers: list[int]
) -> None:
    """On texts of four lengths in one padded batch; on a path, with the gradient averaged over embeddings in between."""
    scorer = scorer_of(model, small_tokenizer, EXAMPLES, counterfactuals=counterfactual == "pairs")
    (batch,) = scorer.batches
    assert len(set(batch.real.sum(1).tolist())) == 4
    sites = scorer.anatomy.sites(layers=layers)
    by_hand = effects_by_hand(model, small_tokenizer, EXAMPLES, sites, counterfactual, steps=steps)
    for reduction in REDUCTIONS:
        found = measured(scorer, sites, counterfactual=counterfactual, reduction=reduction, steps=steps)
        assert list(found) == list(sites)
        for site in sites:
            assert_close(found[site].loss_change, reduced(by_hand, site, "sum"), site)
            assert_close(found[site].score, reduced(by_hand, site, reduction), site)


def test_padding_is_no_token_whose_effect_of_zero_could_be_the_largest(model: Any, small_tokenizer: Any) -> None:
    few = [Example("1 +", " 2"), Example("The city of", " Lyon")]
    scorer = scorer_of(model, small_tokenizer, few)
    assert not scorer.batches[0].real.all()
    sites = scorer.anatomy.sites(layers=[0], matrix_types=[MatrixType.UP, MatrixType.DOWN])
    by_hand = effects_by_hand(model, small_tokenizer, few, sites, "zero")
    found = measured(scorer, sites, reduction="max")
    below = [found[site].score[reduced(by_hand, site, "max") < 0] for site in sites]
    assert sum(map(len, below)) > 0  # components that help at every single token
    assert all((scores < 0).all() for scores in below)


@pytest.mark.parametrize("counterfactual", COUNTERFACTUALS)
def test_half_precision_gives_scores_of_the_same_size(
    tiny: Callable[..., Any], small_tokenizer: Any, counterfactual: Any
) -> None:
    """Though its loss is scaled up, lest gradients vanish."""
    plan = {"counterfactual": counterfactual, "reduction": "max"}
    exact, half = (
        measured(scorer, scorer.anatomy.sites(layers=[1]), **plan)
        for scorer in (
            scorer_of(precise, small_tokenizer, EXAMPLES, counterfactuals=True)
            for precise in (tiny("llama"), tiny("llama").half())
        )
    )
    for site, effects in half.items():
        for found, expected in (
            (effects.loss_change, exact[site].loss_change),
            (effects.score, exact[site].score),
        ):
            size = float(expected.abs().max())
            torch.testing.assert_close(found, expected, atol=0.05 * size, rtol=0)


# Rolled


def test_swapped_with_its_own_beginning_a_text_loses_nothing(model: Any, small_tokenizer: Any) -> None:
    """Where both have a token the activations are the same, and a token only one of them has is not counted."""
    pair = [Example("The city of Lyon is in", " France and the city"), Example("The city of Lyon", " is")]
    scorer = scorer_of(model, small_tokenizer, pair)
    for effects in measured(scorer, scorer.anatomy.sites(), counterfactual="roll", reduction="max").values():
        assert float(effects.loss_change.abs().max()) < 1e-6
        assert float(effects.score.abs().max()) < 1e-6


def test_an_example_alone_cannot_be_swapped_and_the_remedy_is_named(model: Any, small_tokenizer: Any) -> None:
    scorer = scorer_of(model, small_tokenizer, EXAMPLES[:1], fewest=2)
    with pytest.raises(UsageError) as raised:
        measured(scorer, scorer.anatomy.sites(), counterfactual="roll")
    assert str(raised.value) == (
        "The counterfactual 'roll' swaps each example with another of its batch, and a batch holds only one: take two "
        "examples or more, or another counterfactual (--counterfactual mean)."
    )


def test_an_odd_number_of_long_examples_leaves_none_without_a_partner(
    model: Any, small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(batch_tokens=8))
    sites = Anatomy.of(model).sites(layers=[1])
    with pytest.raises(UsageError, match="a batch holds only one"):
        measured(scorer_of(model, small_tokenizer, SAME_LENGTH), sites, counterfactual="roll")
    scorer = scorer_of(model, small_tokenizer, SAME_LENGTH, fewest=2)
    assert [sorted(set(batch.sequences)) for batch in scorer.batches] == [[0, 1], [2, 3, 4]]
    found = measured(scorer, sites, counterfactual="roll")
    by_hand = effects_by_hand(model, small_tokenizer, SAME_LENGTH, sites, "roll", partners=[1, 0, 4, 2, 3])
    for site in sites:
        assert_close(found[site].loss_change, reduced(by_hand, site, "sum"), site)


# Paired


def test_a_counterfactual_that_is_the_prompt_itself_changes_nothing(model: Any, small_tokenizer: Any) -> None:
    same = [Example(example.prompt, example.answer, counterfactual=example.prompt) for example in EXAMPLES]
    scorer = scorer_of(model, small_tokenizer, same, counterfactuals=True)
    for steps in (1, 2):
        for effects in measured(scorer, scorer.anatomy.sites(), counterfactual="pairs", steps=steps).values():
            assert not effects.loss_change.any()


def test_pairs_are_refused_where_no_counterfactual_was_encoded(model: Any, small_tokenizer: Any) -> None:
    scorer = scorer_of(model, small_tokenizer, EXAMPLES)
    with pytest.raises(UsageError, match=r"'pairs' needs .* counterfactual prompts: .*counterfactuals=True"):
        measured(scorer, scorer.anatomy.sites(), counterfactual="pairs")


# Means


def test_mean_inputs_are_those_over_all_tokens_the_model_reads(
    model: Any, small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(batch_tokens=12))
    scorer = scorer_of(model, small_tokenizer, EXAMPLES)
    assert len(scorer.batches) > 1
    assert not all(batch.real.all() for batch in scorer.batches)
    whole = scorer.anatomy.sites()
    heads = [WeightSite(1, MatrixType.OUTPUT, head=head) for head in range(4)] + [WeightSite(1, MatrixType.KEY, head=1)]
    found = mean_inputs(scorer, [*whole, *heads])
    seen = [inputs_seen(model, whole, text_of(small_tokenizer, example).read) for example in EXAMPLES]
    assert set(found) == {*whole, *heads}
    for site in whole:
        expected = torch.cat([inputs[site] for inputs in seen]).mean(0).float()
        torch.testing.assert_close(found[site], expected, atol=1e-5, rtol=1e-5)
    for site in heads[:4]:
        assert site.head is not None
        share = found[WeightSite(1, MatrixType.OUTPUT)][8 * site.head : 8 * (site.head + 1)]
        torch.testing.assert_close(found[site], share)
    torch.testing.assert_close(found[heads[4]], found[WeightSite(1, MatrixType.KEY)])


def test_mean_inputs_at_each_position_are_those_over_examples(
    model: Any, small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(batch_tokens=12))
    scorer = scorer_of(model, small_tokenizer, SAME_LENGTH)
    assert len(scorer.batches) > 1
    sites = [WeightSite(0, MatrixType.UP), WeightSite(2, MatrixType.OUTPUT), WeightSite(1, MatrixType.DOWN)]
    seen = [inputs_seen(model, sites, text_of(small_tokenizer, example).read) for example in SAME_LENGTH]
    found = mean_inputs(scorer, sites, at_each_position=True)
    for site in sites:
        expected = torch.stack([inputs[site] for inputs in seen]).mean(0).float()
        assert expected.shape[0] == 6
        torch.testing.assert_close(found[site], expected, atol=1e-5, rtol=1e-5)
    head = WeightSite(2, MatrixType.OUTPUT, head=3)
    at_head = mean_inputs(scorer, [head], at_each_position=True)[head]
    torch.testing.assert_close(at_head, found[sites[1]][:, 24:])


@pytest.mark.parametrize("batch_tokens", [1024, 1])  # in one batch, and each in its own
def test_means_at_each_position_are_refused_of_examples_that_differ_in_length(
    model: Any, small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(batch_tokens=batch_tokens))
    scorer = scorer_of(model, small_tokenizer, EXAMPLES)
    with pytest.raises(UsageError) as raised:
        mean_inputs(scorer, scorer.anatomy.sites(), at_each_position=True)
    assert str(raised.value) == (
        "A bias at each position needs examples of one length, and these have 4 to 9 tokens: take bias 'mean' "
        "(--bias mean)."
    )


# The walk


@pytest.mark.parametrize("counterfactual", COUNTERFACTUALS)
@pytest.mark.parametrize("reduction", ["sum", "max"])
def test_a_sample_walked_in_parts_has_the_effects_of_the_whole_whatever_stands_in(
    model: Any, small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, counterfactual: Any, reduction: Any
) -> None:
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(batch_tokens=8))
    scorer = scorer_of(model, small_tokenizer, [*EXAMPLES, *SAME_LENGTH], counterfactuals=True, fewest=2)
    assert len(scorer.batches) == 4
    sites = scorer.anatomy.sites(layers=[0, 2])
    asked: list[Tensor] = []

    def counted(matrix: Tensor) -> Any:
        asked.append(matrix)
        return decompose(matrix)

    plan = EffectPlan(counterfactual=counterfactual, reduction=reduction, steps=2)
    whole = measure_effects(scorer, sites, decompose=counted, plan=plan)
    assert len(asked) == len(sites)
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(effect_bytes=1))
    parts = measure_effects(scorer, sites, decompose=counted, plan=plan)
    assert len(asked) == 2 * len(sites)  # once more, however little fits into memory
    for site in sites:
        assert_close(parts[site].loss_change, whole[site].loss_change, site)
        assert_close(parts[site].score, whole[site].score, site)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"counterfactual": "shuffle"}, "counterfactual is one of zero, mean, roll, pairs, not 'shuffle'."),
        ({"reduction": "median"}, "reduction is one of consistency, sum, max, mean-abs, squares, not 'median'."),
        ({"steps": 0}, "steps is 1 or more, not 0."),
    ],
)
def test_a_setting_there_is_not_is_refused_with_those_there_are(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        EffectPlan(**settings)
    assert str(raised.value) == said


@pytest.mark.parametrize("where", ["decomposing", "in a block"])
@pytest.mark.parametrize("counterfactual", COUNTERFACTUALS)
def test_a_walk_that_fails_leaves_the_model_as_it_was(
    model: Any, small_tokenizer: Any, counterfactual: Any, where: str
) -> None:
    scorer = scorer_of(model, small_tokenizer, EXAMPLES, counterfactuals=True)
    model.train()
    model.model.layers[0].mlp.eval()  # a mixture, to be found again
    model.get_input_embeddings().weight.requires_grad_(False)
    before = state_of(model)
    asked: list[Tensor] = []

    def fail_at_the_second(matrix: Tensor) -> Any:
        asked.append(matrix)
        if len(asked) == 2 and where == "decomposing":
            raise KeyboardInterrupt
        return decompose(matrix)

    def fail_on_the_way_down(*_: Any) -> None:
        if torch.is_grad_enabled() and where == "in a block":
            raise KeyboardInterrupt

    handle = model.model.layers[1].mlp.register_forward_hook(fail_on_the_way_down)
    plan = EffectPlan(counterfactual=counterfactual, steps=2)
    with pytest.raises(KeyboardInterrupt):
        measure_effects(scorer, scorer.anatomy.sites(), decompose=fail_at_the_second, plan=plan)
    handle.remove()
    assert state_of(model) == before


def state_of(model: Any) -> list[Any]:
    """Everything a walk touches: modes, hooks, replaced forwards, who asks for a gradient, gradients."""
    modules = [
        (module.training, len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
        for module in model.modules()
    ]
    return [modules, [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]]
