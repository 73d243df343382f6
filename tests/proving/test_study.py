"""The queue of trials: no key twice, in order, read anew each time, and put back by whoever fails."""

import gc
import logging
import math
import threading
import time
from pathlib import Path

import optuna
import pytest

from strop.errors import RunError, UsageError
from strop.proving import CandidateSpace, Study, Trial, TrialKey

LAYERS: CandidateSpace[int] = CandidateSpace(
    "cut",
    {"layer": optuna.distributions.IntDistribution(0, 9)},
    lambda layer: {"layer": layer},
    lambda settings: settings["layer"],
)
SHARES: CandidateSpace[float] = CandidateSpace(
    "prune",
    {"layer": optuna.distributions.FloatDistribution(0.0, 1.0)},  # the same name for something else
    lambda share: {"layer": share},
    lambda settings: settings["layer"],
)


def key(layer: int | None, **changes: object) -> TrialKey:
    return LAYERS.key(layer, **{"stage": "search", "round": 1, "split": "select", "examples": 24, **changes})


def trial(of: TrialKey, accuracy: float | None = 0.5, loss: float = 1.25) -> Trial:
    return Trial(of, accuracy, loss, elapsed_seconds=3.5)


KEYS = [key(layer) for layer in (3, 1, 2)]


@pytest.fixture(params=["memory", "sqlite"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return None if request.param == "memory" else f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def opened(address: str | None, name: str = "study", **settings: object) -> Study:
    return Study(address, name=name, spaces=[LAYERS, SHARES], **settings)  # type: ignore[arg-type]


def work(study: Study, keys: list[TrialKey] | None = None) -> list[TrialKey]:
    """Do all that waits; return in which order."""
    done = []
    while (claim := study.claim(keys)) is not None:
        with claim:
            claim.finish(trial(claim.key))
        done.append(claim.key)
    return done


def test_trials_are_done_in_the_order_they_were_enqueued(address: str | None) -> None:
    study = opened(address)
    study.enqueue(KEYS)
    study.enqueue([key(0)])
    assert study.unfinished() == (*KEYS, key(0))
    assert work(study) == [*KEYS, key(0)]
    assert study.trials() == tuple(trial(each) for each in (*KEYS, key(0)))
    assert study.unfinished() == ()


def test_trials_are_done_in_the_order_asked_for_and_no_others(address: str | None) -> None:
    study = opened(address)
    study.enqueue([*KEYS, key(0)])
    assert work(study, [key(0), key(2), key(7)]) == [key(0), key(2)]
    assert study.unfinished() == (key(3), key(1))
    assert study.unfinished([key(1), key(2)]) == (key(1),)
    assert study.trials() == (trial(key(2)), trial(key(0)))  # in the order of the queue


def test_a_trial_that_waits_runs_or_is_finished_is_not_enqueued_again(address: str | None) -> None:
    study = opened(address)
    study.enqueue([*KEYS, *KEYS])
    claim = study.claim()
    assert claim is not None
    with claim:
        study.enqueue(KEYS)
        assert study.claim([claim.key]) is None
        claim.finish(trial(claim.key))
    study.enqueue(KEYS)
    assert work(study) == KEYS[1:]
    study.enqueue(KEYS)
    assert work(study) == []
    assert len(study.trials()) == 3


def test_a_trial_is_found_once_it_is_finished_by_all_of_its_key(address: str | None) -> None:
    study = opened(address)
    keys = [key(1), key(1, examples=6), key(1, split="train"), key(1, round=2), key(None), key(1, stage="screen")]
    study.enqueue(keys)
    assert [study.find(each) for each in keys] == [None] * 6
    for loss, each in enumerate(keys):
        claim = study.claim([each])
        assert claim is not None
        with claim:
            assert study.find(each) is None
            claim.finish(trial(each, loss=loss))
    assert [study.find(each) for each in keys] == [trial(each, loss=loss) for loss, each in enumerate(keys)]
    assert study.find(key(1, examples=7)) is None


def test_what_another_has_done_is_seen_at_once(file: str) -> None:
    one, other = opened(file), opened(file)
    one.enqueue(KEYS[:2])
    other.enqueue(KEYS)
    claim = one.claim()
    assert claim is not None
    with claim:
        assert other.claim([claim.key]) is None
        assert other.find(claim.key) is None
        claim.finish(trial(claim.key, loss=7.0))
    assert other.find(claim.key) == trial(claim.key, loss=7.0)
    assert other.trials() == one.trials()
    assert work(other) == KEYS[1:]
    assert work(one) == []
    assert one.trials() == opened(file).trials()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, None])
def test_a_trial_that_is_left_unfinished_is_put_back_where_it_was(
    address: str | None, error: type[BaseException] | None
) -> None:
    study = opened(address)
    study.enqueue(KEYS)
    claim = study.claim()
    assert claim is not None
    if error is None:
        with claim:
            pass
    else:
        with pytest.raises(error), claim:
            raise error
    assert study.trials() == ()
    assert work(study) == KEYS


def test_a_claim_is_finished_only_by_a_trial_of_its_key() -> None:
    study = opened(None)
    study.enqueue(KEYS)
    claim = study.claim()
    assert claim is not None
    with claim, pytest.raises(UsageError, match="cannot be finished by"):
        claim.finish(trial(KEYS[1]))
    assert study.trials() == ()
    assert work(study) == KEYS


def test_a_dead_workers_trial_is_put_back_at_once_and_its_late_result_is_dropped(file: str) -> None:
    dead, other = opened(file, worker="dead"), opened(file, worker="other")
    dead.enqueue(KEYS)
    late, held = dead.claim(), other.claim()
    assert late is not None
    assert held is not None
    assert opened(file).requeue_abandoned() == ()
    assert opened(file).requeue_abandoned(dead_workers={"dead", "unheard of"}) == (late.key,)
    late.finish(trial(late.key, loss=9.0))
    with late:
        pass  # leaving it late puts nothing back twice
    assert other.find(late.key) is None
    held.finish(trial(held.key))
    assert work(other) == [late.key, KEYS[2]]  # it kept its place
    assert other.trials() == tuple(trial(each) for each in KEYS)


def test_whoever_is_alone_takes_over_all_but_its_own(file: str) -> None:
    mine, other = opened(file), opened(file)
    mine.enqueue(KEYS)
    own, theirs = mine.claim(), other.claim()
    assert own is not None
    assert theirs is not None
    assert mine.requeue_abandoned(alone=True) == (theirs.key,)
    assert work(mine) == KEYS[1:]
    own.finish(trial(own.key))
    assert len(mine.trials()) == 3


def test_a_trial_lost_between_failing_and_being_put_back_is_put_back_by_the_next(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(file)
    study.enqueue(KEYS)
    assert study.claim() is not None
    killed = opened(file)
    monkeypatch.setattr(killed, "_add", lambda new: None)
    killed.requeue_abandoned(alone=True)
    assert opened(file).requeue_abandoned() == (KEYS[0],)
    assert work(opened(file)) == KEYS


def test_whoever_holds_a_trial_says_so_and_whoever_falls_silent_loses_it(file: str) -> None:
    settings = {"heartbeat_seconds": 1, "grace_seconds": 3}
    study, other = opened(file, **settings), opened(file, **settings)
    study.enqueue(KEYS)
    held, silent = study.claim(), study.claim()
    assert held is not None
    assert silent is not None
    with held:
        deadline = time.monotonic() + 20
        while not (back := other.requeue_abandoned()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert back == (silent.key,)
        held.finish(trial(held.key))
    assert work(other) == KEYS[1:]


def test_records_two_processes_write_of_one_key_are_one_trial(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, killed = opened(file), opened(file), opened(file)
    for study in (other, killed):
        monkeypatch.setattr(study, "_read_new", lambda: None)  # as if both looked before either wrote
    monkeypatch.setattr(killed, "_fail", lambda record: None)  # and was killed before it withdrew its own
    one.enqueue(KEYS)
    killed.enqueue(KEYS)
    monkeypatch.undo()
    assert len(one._study.get_trials()) == 6
    assert work(one) == KEYS
    assert work(killed) == []
    assert len(opened(file).trials()) == 3
    assert opened(file).unfinished() == ()


def test_threads_that_share_a_study_do_every_trial_once(file: str) -> None:
    keys = [key(layer, round=number) for layer in range(10) for number in (1, 2)]
    study = opened(file)
    study.enqueue(keys)
    done: list[TrialKey] = []
    threads = [threading.Thread(target=lambda: done.extend(work(study))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.text for each in done) == sorted(each.text for each in keys)


def test_methods_share_a_study_though_their_settings_have_the_same_names(file: str) -> None:
    keys = [key(2), SHARES.key(0.5, stage="search", round=1, split="select", examples=24)]
    study = opened(file)
    study.enqueue(keys)
    assert work(study) == keys
    params = [kept.params for kept in optuna.load_study(study_name="study", storage=file).trials]
    assert params == [{"cut.layer": 2}, {"prune.layer": 0.5}]


def test_optuna_can_read_the_study_and_agrees_on_the_best(file: str) -> None:
    study = opened(file)
    study.enqueue(KEYS)
    for accuracy in (0.25, 0.75, 0.5):
        claim = study.claim()
        assert claim is not None
        with claim:
            claim.finish(trial(claim.key, accuracy))
    kept = optuna.load_study(study_name="study", storage=file)
    assert (kept.best_value, kept.best_trial.params) == (0.75, {"cut.layer": 1})
    assert all(each.state is optuna.trial.TrialState.COMPLETE for each in kept.trials)


def test_a_loss_that_is_no_number_comes_back(file: str) -> None:
    study = opened(file)
    study.enqueue(KEYS[:1])
    claim = study.claim()
    assert claim is not None
    with claim:
        claim.finish(trial(claim.key, None, math.nan))
    (again,) = opened(file).trials()
    assert math.isnan(again.loss)


def test_candidates_that_fit_no_space_are_refused_and_nothing_is_written(address: str | None) -> None:
    study = opened(address)
    with pytest.raises(UsageError, match="no space of the method graft"):
        study.enqueue([TrialKey("graft", "search", 1, "select", 24, {"layer": 1})])
    with pytest.raises(UsageError, match="does not fit its space"):
        study.enqueue([TrialKey("cut", "search", 1, "select", 24, {"layer": 10})])
    with pytest.raises(UsageError, match="of one method: cut, cut"):
        Study(address, name="other", spaces=[LAYERS, LAYERS])
    assert study.unfinished() == ()


def test_long_names_of_what_is_remembered_fit_the_tables_and_stay_apart(address: str | None) -> None:
    study = opened(address)
    names = ["x" * 512, "x" * 513, "x" * 600 + "a", "x" * 600 + "b"]
    for index, name in enumerate(names):
        study.remember(name, index)
    assert [study.recall(name) for name in names] == [0, 1, 2, 3]
    assert max(len(name) for name in study._study.user_attrs) == 512


def test_values_are_remembered_beside_the_trials_as_json(address: str | None) -> None:
    study = opened(address)
    study.remember("candidates", [(1, "up", 0.25)])
    study.remember("candidates", [(2, "up", 0.25)])
    assert study.recall("candidates") == [[2, "up", 0.25]]
    assert study.recall("nothing") is None
    if address is not None:
        assert opened(address).recall("candidates") == [[2, "up", 0.25]]
    with pytest.raises(UsageError, match="cannot remember 'a set'"):
        study.remember("a set", {1})


def test_studies_of_one_storage_are_kept_apart(file: str) -> None:
    one, other = opened(file, "one"), opened(file, "other")
    one.enqueue(KEYS)
    assert other.claim() is None
    other.enqueue(KEYS[:1])
    assert work(other) == KEYS[:1]
    assert one.trials() == ()


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
        opened(storage)
    message = str(raised.value)
    assert message.startswith("The study storage ")
    assert storage.split(":")[0] in message
    assert "cannot be opened" in message
    assert "\n" not in message
    assert "s3cret" not in message


def test_a_storage_that_fails_later_says_why_in_one_sentence(file: str, tmp_path: Path) -> None:
    study = opened(file)
    study.enqueue(KEYS)
    with study._database.engine.begin() as connection:  # type: ignore[union-attr]
        connection.exec_driver_sql("DROP TABLE trials")
    with pytest.raises(
        RunError, match=r"^The study storage .* cannot be read or written: .*no such table.*--resume\.$"
    ):
        study.trials()


def test_a_study_leaves_optunas_messages_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.INFO)
    try:
        study = opened(None)
        study.enqueue(KEYS)
        work(study)
        assert optuna.logging.get_verbosity() == logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_a_study_that_is_no_longer_used_holds_no_connection(file: str) -> None:
    study = opened(file)
    study.enqueue(KEYS)
    engine = study._database.engine  # type: ignore[union-attr]
    assert engine.pool.checkedin() + engine.pool.checkedout() > 0
    del study
    gc.collect()
    assert engine.pool.checkedin() == engine.pool.checkedout() == 0


def test_a_process_that_dies_while_the_tables_are_made_leaves_no_file_that_others_stumble_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"sqlite:///{tmp_path / 'study.db'}"

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("strop.proving.storage.os.link", die)
        with pytest.raises(KeyboardInterrupt):
            Study(address, name="study")
    assert list(tmp_path.iterdir()) == []
    for _ in range(3):
        assert Study(address, name="study").trials() == ()


def test_where_a_file_system_has_no_links_the_tables_are_made_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr("strop.proving.storage.os.link", refuse)
    assert Study(f"sqlite:///{tmp_path / 'study.db'}", name="study").trials() == ()
    assert (tmp_path / "study.db").is_file()


def test_a_study_of_another_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'study.db'}"
    older = optuna.create_study(storage=address, study_name="study")
    older.add_trial(optuna.trial.create_trial(value=0.5))
    with pytest.raises(RunError, match="trials of another version of Strop"):
        Study(address, name="study").trials()
