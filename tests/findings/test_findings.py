"""Tables of what a run's files show, each against the same figures by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from strop.errors import RunError
from strop.findings import (
    AnswerByShare,
    FactInWords,
    RemovedComponents,
    ShareKept,
    changed_examples,
    choice_curve,
    gain_by_category,
    gain_by_frequency,
    loss_by_layer_and_rank,
    paraphrase_robustness,
    race_curve,
    read_paraphrases,
    read_removed,
    spectrum_rows,
    write_paraphrases,
    write_removed,
)
from strop.runs import EditedMatrix, KeptAnswer, KeptTrial
from strop.statistics import compare_differences


def answers_of(count: int = 60, **changes: object) -> list[KeptAnswer]:
    """Answers of which the rarer ones are fixed more often, in groups of two."""
    rows = [
        KeptAnswer(
            row=n + 1, score="exact", prompt=f"prompt {n}", wanted=f"wanted {n}", before="b", after="a",
            right_before=n % 10 == 0, right_after=n % (2 + n // 12) == 0, loss_before=3.0 + n / 100,
            loss_after=2.0 + n / 50, category="ab"[n % 2], group=f"g{n // 2}", frequency=float(n // 3) if n != 7 else None,
        )
        for n in range(count)
    ]  # fmt: skip
    return [dataclasses.replace(row, **changes) for row in rows]  # type: ignore[arg-type]


def test_gain_by_frequency_is_that_of_each_part() -> None:
    answers = answers_of()
    found = gain_by_frequency(answers, bins=4)
    assert found is not None
    assert (found.measure, found.unknown) == ("accuracy", 1)
    assert sum(own.count for own in found.bins) == 59
    assert len(found.bins) == 4
    for own, following in zip(found.bins, found.bins[1:], strict=False):
        assert own.most < following.least
    for own in found.bins:
        members = [a for a in answers if a.frequency is not None and own.least <= a.frequency <= own.most]
        assert own.count == len(members)
        before = [bool(a.right_before) for a in members]
        after = [bool(a.right_after) for a in members]
        assert (own.before, own.after) == pytest.approx((np.mean(before), np.mean(after)))
        expected = compare_differences(
            np.array(after, dtype=float) - np.array(before, dtype=float),
            groups=np.array([int(str(a.group)[1:]) for a in members]),
            right_or_wrong=True,
        )
        assert own.comparison == expected
        fixed = sum(a and not b for a, b in zip(after, before, strict=True))
        assert own.boost == pytest.approx(fixed / sum(before))
    assert found.to_json()["bins"][0]["comparison"]["fixed"] == found.bins[0].comparison.fixed


def test_facts_of_one_frequency_are_never_parted() -> None:
    found = gain_by_frequency(answers_of(frequency=5.0))
    assert found is not None
    assert [(own.least, own.most, own.count) for own in found.bins] == [(5.0, 5.0, 60)]


def test_where_nothing_is_right_or_wrong_it_is_the_loss() -> None:
    answers = answers_of(right_before=None, right_after=None)
    found = gain_by_frequency(answers, bins=3)
    assert found is not None
    assert found.measure == "loss"
    first = [a for a in answers if a.frequency is not None and a.frequency <= found.bins[0].most]
    gain = np.mean([(a.loss_before or 0) - (a.loss_after or 0) for a in first])
    assert found.bins[0].comparison.gain == pytest.approx(gain)
    spread = gain_by_category(answers)
    assert spread is not None
    assert spread.measure == "loss"
    assert changed_examples(answers) is None


def test_without_a_column_or_answers_there_is_no_table() -> None:
    assert gain_by_frequency(answers_of(frequency=None)) is None
    assert gain_by_category(answers_of(category=None)) is None
    assert (gain_by_frequency([]), gain_by_category([]), changed_examples([])) == (None, None, None)
    assert gain_by_frequency(answers_of(right_before=None, loss_after=None)) is None


def test_gain_by_category_counts_answers_of_each() -> None:
    found = gain_by_category(answers_of())
    assert found is not None
    for own in found.categories:
        members = [a for a in answers_of() if a.category == own.name]
        assert own.count == len(members)
        assert own.edited == pytest.approx(np.mean([bool(a.right_after) for a in members]))
        assert own.fixed == sum(a.fixed for a in members)


def test_changed_examples_come_with_what_moved_most_first() -> None:
    answers = answers_of()
    found = changed_examples(answers, most=3)
    assert found is not None
    assert found.fixed_count == sum(a.fixed for a in answers)
    assert found.broken_count == sum(a.broken for a in answers)
    falls = [own.loss_before - own.loss_after for own in found.fixed]
    assert falls == sorted(falls, reverse=True)
    assert falls[0] == max((a.loss_before or 0) - (a.loss_after or 0) for a in answers if a.fixed)
    whole = changed_examples(answers)
    assert whole is not None
    assert len(whole.fixed) == whole.fixed_count


def test_paraphrases_are_counted_fact_by_fact(tmp_path: Path) -> None:
    facts = [
        FactInWords(row=1, group=0, before=(True, True, False), after=(True, True, True)),
        FactInWords(row=2, group=0, before=(True, True), after=(True, False)),
        FactInWords(row=3, group=1, before=(False, False), after=(False, True)),
        FactInWords(row=4, group=2, before=(True,), after=(True,)),  # has none, and does not count
    ]
    found = paraphrase_robustness(facts)
    assert found is not None
    assert (found.facts, found.wordings) == (3, 4)
    assert (found.right_before, found.right_after) == (2 / 4, 3 / 4)
    assert (found.whole_before, found.whole_after) == pytest.approx((1 / 3, 1 / 3))
    assert (found.robust_before, found.robust_after) == (1 / 2, 1 / 2)
    assert (found.comparison.fixed, found.comparison.broken) == (1, 1)
    assert paraphrase_robustness(facts[3:]) is None
    write_paraphrases(tmp_path, facts)
    assert read_paraphrases(tmp_path) == tuple(facts)
    (tmp_path / "paraphrases.json").write_text("[]")
    with pytest.raises(RunError, match="is damaged"):
        read_paraphrases(tmp_path)


def test_what_removed_components_say_comes_back(tmp_path: Path) -> None:
    found = RemovedComponents(
        matrix="layer 2 up", rank=3, full_rank=16, examples=2, fixed=False, edited_similarity=0.9,
        shares=(ShareKept(share=0.5, similarity=0.4, ci95=(0.1, 0.7), right=0.0),),
        answers=(AnswerByShare(prompt="p", wanted="w", said=("the",)),),
    )  # fmt: skip
    assert read_removed(tmp_path) is None
    write_removed(tmp_path, found)
    assert read_removed(tmp_path) == found
    (tmp_path / "removed.json").write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        read_removed(tmp_path)


def test_the_spectrum_says_what_is_left_of_a_matrix() -> None:
    values = (4.0, 2.0, 1.0, 1.0)
    cut = EditedMatrix(
        site={"layer": 3, "matrix_type": "down"}, method="rank_reduction", count=4, removed=2, mean_change=0.5,
        energy_kept=20 / 22, indices=(0, 1, 2, 3), values=values, scales=(1.0, 1.0, 0.0, 0.0),
    )  # fmt: skip
    bare = dataclasses.replace(cut, values=(), scales=(), indices=(), energy_kept=None)
    row, without = spectrum_rows([cut, bare])
    shares = np.array(values) / 8
    assert row.effective_rank_before == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    kept = np.array([4, 2]) / 6
    assert row.effective_rank_after == pytest.approx(np.exp(-(kept * np.log(kept)).sum()))
    assert (row.removed, row.energy_kept, without.effective_rank_before, without.effective_rank_after) == (
        2, 20 / 22, None, None,
    )  # fmt: skip


def trial_of(method: str, loss: float, *, round: int = 1, examples: int = 50, **candidate: object) -> KeptTrial:
    return KeptTrial(
        study="s", method=method, stage="choice", round=round, split="select", examples=examples, candidate=candidate,
        accuracy=round_accuracy(loss), loss=loss, elapsed_seconds=10.0 * round,
    )  # fmt: skip


def round_accuracy(loss: float) -> float:
    return round(1 / (1 + loss), 3)


def test_a_sweep_is_laid_out_by_matrix_type_share_and_layer() -> None:
    trials = [
        trial_of("base", 4.0, round=0),
        *(
            trial_of("rank_reduction", layer + share, layer=layer, matrix_type=kind, rank_fraction=share, rank=1)
            for kind in ("up", "key")
            for share in (0.5, 0.1)
            for layer in (2, 0, 1)
        ),
        trial_of("rank_reduction", 0.0, layer=1, matrix_type="up", rank_fraction=0.1, examples=8),  # a screening
        trial_of("rank_reduction", 0.0, layer=1, matrix_type="up", rank_fraction=0.1, round=2),
        trial_of("rank_reduction", 0.0, layer=1, matrix_type="up", rank_fraction=0.1, subspaces=2, axis="output"),
    ]
    found = loss_by_layer_and_rank(trials)
    assert found is not None
    assert (found.base, found.examples) == (4.0, 50)
    assert list(found.losses) == ["key", "up"]
    assert list(found.losses["up"]) == [0.1, 0.5]
    assert found.losses["up"][0.5] == {0: 0.5, 1: 1.5, 2: 2.5}
    assert found.lowest == ("key", 0.1, 0, 0.1)
    assert found.count == 12
    assert loss_by_layer_and_rank(trials[:3]) is None


def test_a_race_tells_how_each_stood_in_each_round_beside_the_model_as_it_was() -> None:
    def trial(
        method: str, loss: float, *, round: int, examples: int, stage: str = "choice", **own: object
    ) -> KeptTrial:
        bare = trial_of(method, loss, round=round, **own)
        return dataclasses.replace(bare, stage=stage, examples=examples, accuracy=1 - loss / 10)

    trials = [
        trial("base", 4.0, round=0, examples=20, stage=""),
        trial("base", 5.0, round=0, examples=40, stage=""),
        trial("base", 1.0, round=0, examples=40, stage="a builder's own"),
        trial("sharpen", 0.5, round=1, examples=40, stage="sharpening 1", size=0.01),
        trial("improve", 3.0, round=1, examples=20, name="LASER", carried=0),
        trial("improve", 3.5, round=1, examples=20, name="bias", carried=0),
        trial("improve", 2.0, round=2, examples=40, name="LASER", carried=1),
        trial("improve", 2.5, round=2, examples=40, name="LASER", carried=0),
    ]
    found = race_curve(trials)
    assert found is not None
    assert [(number, own.examples, own.loss) for number, own in found.base.items()] == [(1, 20, 4.0), (2, 40, 5.0)]
    losses = {name: {number: own.loss for number, own in stood.items()} for name, stood in found.candidates.items()}
    assert losses == {"LASER": {1: 3.0, 2: 2.0}, "bias": {1: 3.5}}
    assert race_curve(trials[:4]) is None


def test_of_a_race_the_first_share_is_laid_out_beside_no_edit_on_it() -> None:
    share = [
        trial_of("rank_reduction", 2.0 + layer, layer=layer, matrix_type="up", rank_fraction=0.1, examples=16)
        for layer in range(4)
    ]
    longer = trial_of("rank_reduction", 9.0, layer=0, matrix_type="up", rank_fraction=0.1)
    no_edit = trial_of("rank_reduction", 3.5, examples=16)
    found = loss_by_layer_and_rank([trial_of("base", 4.0, round=0), no_edit, *share, longer])
    assert found is not None
    assert (found.base, found.examples, found.count) == (3.5, 16, 4)


def test_a_curve_tells_what_was_best_when() -> None:
    epochs = [trial_of("base", 4.0, round=0)] + [
        trial_of("loreft", loss, round=n, epoch=n) for n, loss in enumerate((2.0, 3.0, 1.0), start=1)
    ]
    found = choice_curve([*epochs, trial_of("loreft", 1.5, round=4, epoch=3, averaged=1)])
    assert found is not None
    assert (found.by_epoch, found.examples) == (True, 50)
    assert [(own.label, own.best) for own in found.points] == [
        ("before", True), ("epoch 1", True), ("epoch 2", False), ("epoch 3", True), ("average of late steps", False),
    ]  # fmt: skip
    assert choice_curve(epochs[:1]) is None
    assert choice_curve([]) is None
    cut = choice_curve([epochs[0], trial_of("rank_reduction", 2.0, layer=1, matrix_type="up", rank_fraction=0.1)])
    assert cut is not None
    assert cut.points[1].label == "layer 1 up 10 %"
    on_two = dataclasses.replace(
        trial_of("rank_reduction", 1.0, layer=1, matrix_type="up", rank_fraction=0.1), below=({}, {})
    )
    composed = choice_curve([epochs[0], on_two])
    assert composed is not None
    assert composed.points[1].label == "layer 1 up 10 %, 2 more below"
    assert not cut.by_epoch
