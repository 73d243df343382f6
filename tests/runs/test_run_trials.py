"""The trial book: every trial comes back as it was written, from any sitting."""

import gc
import logging
import math
from pathlib import Path

import optuna
import pytest

from strop.anatomy import MatrixType, WeightSite
from strop.errors import RunError
from strop.interventions import RankReduction
from strop.runs import CandidateSpace, Trial, TrialBook


def edit(layer: int = 1, matrix_type: MatrixType = MatrixType.UP, rank_fraction: float = 0.25) -> RankReduction:
    return RankReduction(WeightSite(layer, matrix_type), rank_fraction)


def trial(candidate: RankReduction | None = None, **changes: object) -> Trial:
    values = {"round": 1, "examples": 24, "accuracy": 0.5, "loss": 1.25, "elapsed_seconds": 3.5, **changes}
    return Trial(candidate=candidate, **values)  # type: ignore[arg-type]


TRIALS = [
    trial(None, round=0),
    trial(None),
    trial(edit()),
    trial(edit(2, MatrixType.KEY, 1 / 3), accuracy=None, loss=2.0),
    trial(edit(), round=2),
    trial(edit(), examples=6),
    trial(edit(), examples=6, split="train"),
    trial(None, examples=6, split="train"),
]
SPACE: CandidateSpace[RankReduction] = CandidateSpace(
    {
        "layer": optuna.distributions.IntDistribution(0, 2),
        "matrix_type": optuna.distributions.CategoricalDistribution([str(matrix_type) for matrix_type in MatrixType]),
        "rank_fraction": optuna.distributions.FloatDistribution(0.0, 1.0),
    },
    lambda reduction: {
        "layer": reduction.site.layer,
        "matrix_type": str(reduction.site.matrix_type),
        "rank_fraction": reduction.rank_fraction,
    },
    lambda settings: edit(settings["layer"], MatrixType(settings["matrix_type"]), settings["rank_fraction"]),
)


def book(storage: str | None, name: str = "study") -> TrialBook:
    return TrialBook(storage, name=name, space=SPACE)


def test_trials_come_back_in_another_sitting_as_they_were_written(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    first = book(storage)
    for entry in TRIALS:
        first.add(entry)
    first.remember("candidates", [[1, "up", 0.25]])
    again = book(storage)
    assert again.trials == first.trials == tuple(TRIALS)
    assert again.recall("candidates") == [[1, "up", 0.25]]
    assert again.recall("nothing") is None


def test_a_trial_is_on_disk_the_moment_it_is_added(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    first = book(storage)
    for count, entry in enumerate(TRIALS, start=1):
        first.add(entry)
        assert len(book(storage).trials) == count


def test_a_trial_is_found_by_round_candidate_examples_and_split() -> None:
    kept = book(None)
    for entry in TRIALS:
        kept.add(entry)
    for entry in TRIALS:
        assert kept.find(entry.round, entry.candidate, entry.examples, split=entry.split) == entry
    assert kept.find(1, edit(), 24) == TRIALS[2]  # of select, where nothing is said
    assert kept.find(1, edit(rank_fraction=0.3), 24) is None
    assert kept.find(3, edit(), 24) is None
    assert kept.find(1, edit(0), 24) is None
    assert kept.find(1, edit(), 7) is None
    assert kept.find(1, edit(), 24, split="train") is None
    assert kept.find(2, None, 24) is None


def test_books_of_one_storage_keep_their_studies_apart(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    book(storage, "one").add(TRIALS[0])
    assert book(storage, "other").trials == ()


def test_optuna_can_read_the_study_and_agrees_on_the_best(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    kept = book(storage)
    kept.add(trial(edit(0), accuracy=0.25))
    kept.add(trial(edit(1), accuracy=0.75))
    study = optuna.load_study(study_name="study", storage=storage)
    assert study.best_trial.params["layer"] == 1
    assert study.best_value == 0.75
    assert all(entry.state is optuna.trial.TrialState.COMPLETE for entry in study.trials)


def test_accuracy_counts_first_and_then_the_lower_loss() -> None:
    in_order = [
        trial(accuracy=0.5, loss=9.0),
        trial(accuracy=0.5, loss=1.0),
        trial(accuracy=0.6, loss=9.0),
    ]
    assert sorted(in_order, key=lambda entry: entry.merit) == in_order
    assert trial(accuracy=None, loss=2.0).merit > trial(accuracy=None, loss=3.0).merit


def test_a_loss_that_is_no_number_is_worse_than_any_other_and_can_be_kept(tmp_path: Path) -> None:
    broken = trial(edit(), accuracy=None, loss=math.nan)
    assert broken.merit < trial(accuracy=None, loss=1e30).merit
    assert max([broken, trial(accuracy=None, loss=5.0)], key=lambda entry: entry.merit).loss == 5.0
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    book(storage).add(broken)
    (again,) = book(storage).trials
    assert math.isnan(again.loss)
    assert again.merit == broken.merit


@pytest.mark.parametrize(
    "storage",
    [
        "nonsense",
        "nosuchdatabase://host/db",
        "sqlite:////no/such/folder/study.db",
        "postgresql+psycopg://me:s3cret@127.0.0.1:1/db",
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_in_one_sentence_without_its_password(storage: str) -> None:
    with pytest.raises(RunError) as raised:
        book(storage)
    message = str(raised.value)
    assert message.startswith("The study storage ")
    assert storage.split(":")[0] in message
    assert "cannot be opened" in message
    assert "\n" not in message
    assert "s3cret" not in message
    assert not message.endswith("..")


def test_a_book_leaves_optunas_messages_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.INFO)
    try:
        book(None).add(TRIALS[0])
        assert optuna.logging.get_verbosity() == logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_a_book_that_is_no_longer_used_holds_no_connection(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    kept = book(storage)
    kept.add(TRIALS[0])
    engine = kept._study._storage._backend.engine
    assert engine.pool.checkedin() > 0
    del kept
    gc.collect()
    assert engine.pool.checkedin() == engine.pool.checkedout() == 0
