"""What LASER's paper and published code say, and that Strop does the same.

Paper: Sharma, Ash and Misra, "The Truth is in There", arXiv 2312.13558. Code: github.com/pratyushasharma/laser.
"""

import pytest
import torch

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.interventions import RankReduction, applied_interventions
from strop.linalg import decompose, rank_for_fraction, rank_for_laser_rate

CURITIBA = RankReduction(WeightSite(28, MatrixType.UP), rank_fraction=0.01)


def test_the_rank_kept_is_the_floor_of_rho_times_the_largest_possible_rank() -> None:
    """Paper, section 4: W is replaced by its rank-⌊ρ·d⌋ approximation, d the largest rank it could have.

    Table 3's caption says a 4096 x 4096 matrix keeps rank 4 at ρ = 0.01; its own rule gives ⌊40.96⌋ = 40, and so does
    the published code (rate 9.9). Strop follows the rule.
    """
    assert rank_for_fraction(0.01, (4096, 4096)) == 40 == rank_for_laser_rate(9.9, (4096, 4096))
    assert rank_for_fraction(0.01, (4096, 16384)) == 40  # d is the shorter side, as `max_rank` in matrix_utils.py


# The grid of the published scripts (intervention_*.py: rates [1, 2, 4, 6, 8, 9, 9.5, 9.9, 9.95]; 7 stands in the range the
# README allows), for a 4096 x 4096 matrix. By hand: int(4096 * ((10 - rate) * 0.1)), from `do_low_rank` in
# src/laser/matrix_utils.py, `desired_rank = int(max_rank * k)`, called with k = (10 - rate) * 0.1.
REPOSITORY_RANKS = {
    1.0: 3686, 2.0: 3276, 4.0: 2457, 6.0: 1638, 7.0: 1228, 8.0: 819, 9.0: 409, 9.5: 204, 9.9: 40, 9.95: 20,
}  # fmt: skip


@pytest.mark.parametrize(("rate", "rank"), REPOSITORY_RANKS.items())
def test_a_rate_of_the_published_scripts_keeps_the_rank_it_kept_there(rate: float, rank: int) -> None:
    assert rank_for_laser_rate(rate, (4096, 4096)) == rank
    assert rank_for_laser_rate(rate, (16384, 4096)) == rank


@pytest.mark.parametrize(
    ("rate", "rank_fraction"), [(1.0, 0.9), (4.0, 0.6), (8.0, 0.2), (9.0, 0.1), (9.5, 0.05), (9.9, 0.01)]
)
def test_a_rate_counts_tenths_removed_and_rho_the_share_kept(rate: float, rank_fraction: float) -> None:
    assert rank_for_laser_rate(rate, (4096, 4096)) == rank_for_fraction(rank_fraction, (4096, 4096))


def test_where_the_published_code_loses_a_rank_to_rounding_the_paper_is_followed() -> None:
    """(10 − 9.9)·0.1 is 0.00999… in floating point: 1600 x 1600 keeps 15 there, ⌊0.01 · 1600⌋ = 16 by the paper."""
    assert rank_for_laser_rate(9.9, (1600, 1600)) == 15
    assert rank_for_fraction(0.01, (1600, 1600)) == 16


def test_the_largest_singular_values_are_kept_and_the_rest_are_gone() -> None:
    """Paper, section 4, and `svd_lowrank(q=desired_rank)` in the code: the top of the spectrum stays as it is."""
    matrix = torch.randn(40, 20, generator=torch.Generator().manual_seed(0))
    edited = RankReduction(WeightSite(0, MatrixType.UP), rank_fraction=0.25).edit(
        matrix, decompose=decompose, tensors={}
    )
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(edited)
    torch.testing.assert_close(after[:5], before[:5])
    assert float(after[5:].max()) < 1e-5


def test_the_edit_is_as_near_as_the_published_solver_at_its_most_careful() -> None:
    """The code asks torch.svd_lowrank without oversampling (niter 2, or 20 for RoBERTa); exact is never farther."""
    u, _, vh = torch.linalg.svd(torch.randn(60, 40, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    matrix = (u * 0.5 ** torch.arange(40)) @ vh  # a spectrum that fades, so that the two should meet
    torch.manual_seed(0)
    u, s, v = torch.svd_lowrank(matrix, q=4, niter=20)
    theirs = u @ torch.diag(s) @ v.T
    ours = RankReduction(WeightSite(0, MatrixType.UP), rank_fraction=0.1).edit(matrix, decompose=decompose, tensors={})
    assert float((matrix - ours).norm()) <= float((matrix - theirs).norm()) * (1 + 1e-6)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.real
def test_one_per_cent_of_one_matrix_of_a_real_model_changes_what_it_says(real) -> None:
    """The paper's finding: a late MLP input matrix at 1 % of its rank brings out an answer the model did not give."""
    model, tokenizer = real
    ids = tokenizer("The city of Curitiba is in", return_tensors="pt").input_ids
    anatomy = Anatomy.of(model)

    def next_token() -> str:  # what greedy decoding goes on with
        with torch.no_grad():
            return tokenizer.decode(model(ids).logits[0, -1].argmax())

    original = anatomy.read_weight(model, CURITIBA.site).clone()
    assert CURITIBA.rank(tuple(original.shape)) == 5
    plain = next_token()
    with applied_interventions(model, [CURITIBA]):
        edited = next_token()
        assert int(torch.linalg.matrix_rank(anatomy.read_weight(model, CURITIBA.site).double(), rtol=1e-5)) == 5
    assert (plain, edited) == (" the", " Brazil")
    assert next_token() == plain
    assert torch.equal(anatomy.read_weight(model, CURITIBA.site), original)
