"""Ruling out: the paired tests are scipy's, and the best is lost as rarely as the level says."""

import numpy as np
import pytest
import scipy.stats

from strop.statistics import ruled_out
from strop.statistics.ruling_out import p_values_of_lower


def losses_of(models: int, examples: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.exponential(2.0, examples) + rng.normal(0, 0.5, (models, examples)) + 0.2 * np.arange(models)[:, None]


def test_each_pair_is_tested_as_scipy_tests_it() -> None:
    losses = losses_of(5, 30)
    found = p_values_of_lower(losses)
    for one in range(5):
        for other in range(5):
            if one != other:
                by_hand = scipy.stats.ttest_rel(losses[one], losses[other], alternative="less").pvalue
                assert found[one, other] == pytest.approx(by_hand, rel=1e-9)
    assert (np.diag(found) == 1).all()


def test_examples_of_one_group_are_one_observation() -> None:
    losses = losses_of(3, 20)
    twice = np.repeat(losses, 3, axis=1)
    groups = np.repeat(np.arange(20), 3)
    assert p_values_of_lower(twice, groups=groups) == pytest.approx(p_values_of_lower(losses), rel=1e-9)
    assert (p_values_of_lower(losses, groups=np.zeros(20, dtype=np.int64)) == 1).all()


def test_models_that_never_differ_do_not_rule_each_other_out() -> None:
    losses = np.repeat(losses_of(1, 25), 3, axis=0)
    assert not ruled_out(losses, [0.0] * 3, level=0.4).any()


def test_a_lower_loss_does_not_rule_out_who_has_the_higher_figure() -> None:
    losses = np.stack([np.linspace(1, 2, 40), np.linspace(2, 3, 40) + 0.01 * np.sin(np.arange(40))])
    assert ruled_out(losses, [0.5, 0.5], level=0.01).tolist() == [False, True]
    assert ruled_out(losses, [0.5, 0.6], level=0.01).tolist() == [False, False]


def test_a_lower_loss_does_not_rule_out_who_is_surer_of_what_is_right() -> None:
    """One raises the loss of the many answers that are wrong anyway, and makes a few right ones likely."""
    plain = np.full(40, 4.0) + 0.01 * np.sin(np.arange(40))
    edited = plain + 1.0
    edited[:3] = 0.1
    losses = np.stack([plain, edited])
    assert scipy.stats.ttest_rel(plain, edited, alternative="less").pvalue < 0.005
    assert ruled_out(losses, [0.0, 0.0], level=0.005).tolist() == [False, True]
    assert ruled_out(losses, [0.0, 0.0], level=0.005, by_answers=True).tolist() == [False, False]


def test_answers_speak_where_losses_do_not() -> None:
    losses = np.repeat(losses_of(1, 40), 2, axis=0)
    answers = np.zeros((2, 40))
    answers[0, :20] = 1
    answers[1, :6] = 1  # 14 against 0: p = 2^-14
    figures = answers.mean(1).tolist()
    assert ruled_out(losses, figures, level=1e-4, answers=answers).tolist() == [False, True]
    assert ruled_out(losses, figures, level=5e-5, answers=answers).tolist() == [False, False]
    together = np.repeat(np.arange(20), 2)  # seven groups of two: p = 2^-7
    assert not ruled_out(losses, figures, level=1e-3, answers=answers, groups=together).any()


def test_the_best_of_many_alike_is_lost_no_more_often_than_the_level_allows() -> None:
    """Thirty models of which none is better: whoever would be called the best is lost in 5 % of all draws at most."""
    rng = np.random.default_rng(1)
    models, draws = 30, 400
    lost = 0
    for _ in range(draws):
        losses = rng.exponential(2.0, 24) + rng.exponential(0.5, (models, 24))
        lost += bool(ruled_out(losses, [0.0] * models, level=0.05 / (models - 1))[0])
    assert lost / draws <= 0.05
