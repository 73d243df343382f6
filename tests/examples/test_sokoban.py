"""The small Sokoban: its rules, its solver, what the model reads of it, and LASER on a Decision Transformer."""

import json
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from examples.exhaustive import best_reduction
from examples.sokoban.__main__ import main, measures_of
from examples.sokoban.board import ACTIONS, Board, random_board
from examples.sokoban.episodes import LONGEST, NO_ACTION, Episode, Sequences, draw_episodes, state_of
from examples.sokoban.player import build_player, play, train_player
from examples.sokoban.scores import DECISION_TRANSFORMER, ActionScores
from examples.sokoban.solver import Solution
from transformers import DecisionTransformerModel

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite

UP, RIGHT, DOWN, LEFT = range(4)


def board_of(drawing: str) -> Board:
    """Read a board in Sokoban's own signs, where a dot is a goal and an underscore free."""
    rows = drawing.split("/")
    cells = {(row, column): sign for row, line in enumerate(rows) for column, sign in enumerate(line)}

    def where(signs: str) -> frozenset[tuple[int, int]]:
        return frozenset(cell for cell, sign in cells.items() if sign in signs)

    return Board(len(rows), where("#"), where(".*+"), where("$*"), next(iter(where("@+"))))


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return draw_episodes(rooms=8, starts=2, size=4, boxes=1, walls=2, seed=3)


@pytest.fixture(scope="module")
def player() -> DecisionTransformerModel:
    return build_player(size=4, hidden_size=16, layers=2, seed=0)


@pytest.mark.parametrize(
    ("before", "action", "after"),
    [
        ("@$_/__./___", RIGHT, "_@$/__./___"),  # pushed
        ("@$#/__./___", RIGHT, "@$#/__./___"),  # against a wall
        ("_@$/__./___", RIGHT, "_@$/__./___"),  # against the edge
        ("$@_/__./___", RIGHT, "$_@/__./___"),  # never pulled
        ("@__/__./$__", UP, "@__/__./$__"),
        ("_@_/_$_/_._", DOWN, "___/_@_/_*_"),
    ],
)
def test_a_player_pushes_one_box_and_never_pulls(before: str, action: int, after: str) -> None:
    assert board_of(before).after(action) == board_of(after)


def test_boxes_do_not_push_each_other() -> None:
    board = board_of("@$$_/..__/____/____")
    assert board.after(RIGHT) == board


def test_a_step_costs_and_a_solved_board_pays() -> None:
    board = board_of("_@_/_$_/_._")
    assert board.reward_of(board.after(LEFT)) == pytest.approx(-0.1)
    assert board.reward_of(board.after(DOWN)) == pytest.approx(-0.1 + 1 + 10)
    off = board_of("@*___/____./_$___/_____/_____")
    assert off.reward_of(off.after(RIGHT)) == pytest.approx(-0.1 - 1)


def test_a_board_with_two_things_in_a_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="cells of their own"):
        Board(3, frozenset({(0, 0)}), frozenset({(1, 1)}), frozenset({(2, 2)}), player=(0, 0))
    with pytest.raises(ValueError, match="A board with 0 boxes has 1 goals"):
        Board(3, frozenset(), frozenset({(1, 1)}), frozenset(), player=(0, 0))


def steps_forward(board: Board) -> int | None:
    """The length of a shortest solution, found the plain way: forward from the board."""
    seen, waiting = {board}, deque([(board, 0)])
    while waiting:
        position, steps = waiting.popleft()
        if position.is_solved:
            return steps
        for action in range(len(ACTIONS)):
            after = position.after(action)
            if after not in seen:
                seen.add(after)
                waiting.append((after, steps + 1))
    return None


@pytest.mark.parametrize(("size", "boxes", "walls", "count"), [(4, 1, 3, 25), (3, 2, 0, 10)])
def test_the_solver_says_what_a_search_forward_finds(size: int, boxes: int, walls: int, count: int) -> None:
    generator = np.random.default_rng(0)
    lengths = []
    for _ in range(count):
        board = random_board(generator, size=size, boxes=boxes, walls=walls)
        solution = Solution(board)
        lengths.append(solution.steps.get(board))
        assert lengths[-1] == steps_forward(board)
        expected = [
            action for action in range(4) if lengths[-1] and steps_forward(board.after(action)) == lengths[-1] - 1
        ]
        assert list(solution.best_actions(board)) == expected
    assert {length is None for length in lengths} == {True, False}


def test_a_board_without_a_solution_has_no_actions() -> None:
    with pytest.raises(ValueError, match="no solution"):
        Solution(board_of("$@_/__./___")).actions(board_of("$@_/__./___"))


def test_episodes_are_shortest_solutions_of_rooms_that_are_all_different(episodes: list[Episode]) -> None:
    assert [episode.room for episode in episodes] == [room for room in range(8) for _ in range(2)]
    assert len({episode.board.room() for episode in episodes}) == 8
    for episode in episodes:
        position = episode.board
        for action, before in zip(episode.actions, episode.positions, strict=True):
            assert position == before
            position = position.after(action)
        assert position.is_solved
        assert len(episode.actions) == steps_forward(episode.board)
        assert sum(episode.rewards) == pytest.approx(11 - 0.1 * len(episode.actions))


def test_the_model_reads_states_actions_and_what_is_still_to_be_won(episodes: list[Episode]) -> None:
    short, long = sorted(episodes[:6], key=lambda episode: len(episode.actions))[::5]
    read = Sequences.of([short, long]).rows(torch.tensor([0, 1]))
    steps, longest = len(short.actions), len(long.actions)
    assert read.actions.shape == (2, longest)
    assert read.actions[0, :steps].tolist() == list(short.actions)
    assert read.actions[0, steps:].tolist() == [NO_ACTION] * (longest - steps)
    won = [(11 - 0.1 * left) / 10 for left in range(longest, 0, -1)]
    torch.testing.assert_close(read.returns_to_go[1, :, 0], torch.tensor(won))
    inputs = read.model_inputs
    assert inputs["attention_mask"].sum(1).tolist() == [steps, longest]
    assert inputs["actions"].sum(-1).sum(-1).tolist() == [steps, longest]
    planes = state_of(board_of("@$_/__./#__")).reshape(4, 3, 3)
    assert [plane.nonzero().tolist() for plane in planes] == [[[2, 0]], [[1, 2]], [[0, 1]], [[0, 0]]]


class Oracle:
    """A player that sees what the model sees, and does what the solver does."""

    def __call__(self, *, states: torch.Tensor, **others: torch.Tensor) -> SimpleNamespace:
        chosen = torch.zeros(len(states), states.shape[1], 4)
        for row, state in enumerate(states[:, -1]):
            walls, goals, boxes, player = (
                frozenset(map(tuple, plane.nonzero().tolist())) for plane in state.reshape(4, 4, 4)
            )
            board = Board(4, walls, goals, boxes, next(iter(player)))
            chosen[row, -1, Solution(board).actions(board)[0]] = 1
        return SimpleNamespace(action_preds=chosen)


def test_who_plays_as_the_solver_does_solves_all_and_wins_what_it_wins(episodes: list[Episode]) -> None:
    solved, returns = play(Oracle(), [episode.board for episode in episodes], wanted=10.0)  # type: ignore[arg-type]
    assert solved.all()
    np.testing.assert_allclose(returns, [sum(episode.rewards) for episode in episodes])


def test_who_only_runs_against_the_edge_pays_for_every_step(player: DecisionTransformerModel) -> None:
    board = board_of("@___/_$__/__._/____")
    with torch.no_grad():
        player.predict_action[0].bias[UP] = 100.0
    solved, returns = play(player, [board], wanted=10.0)
    with torch.no_grad():
        player.predict_action[0].bias.zero_()
    assert not solved.any()
    np.testing.assert_allclose(returns, [-0.1 * LONGEST])


def test_training_lowers_the_loss_and_is_the_same_each_time(episodes: list[Episode]) -> None:
    losses = []
    for steps in (1, 40, 40):
        model = build_player(size=4, hidden_size=16, layers=2, seed=0)
        train_player(model, episodes, steps=steps, batch=8, rate=5e-3, seed=0)
        losses.append(ActionScores.of(model, episodes, Sequences.of(episodes)).loss.mean())
    assert losses[1] < losses[0] - 0.1
    assert losses[2] == losses[1]


def test_the_family_finds_a_matrix_where_the_decision_transformer_reads_it(player: DecisionTransformerModel) -> None:
    anatomy = Anatomy.of(player, family=DECISION_TRANSFORMER)
    fused = player.encoder.h[1].attn.c_attn.weight.detach()
    key = WeightSite(1, MatrixType.KEY)
    torch.testing.assert_close(anatomy.read_weight(player, key), fused[:, 16:32].T, rtol=0, atol=0)
    before = fused.clone()
    u, s, vh = np.linalg.svd(fused[:, 16:32].T.double().numpy())
    recipe = strop.Recipe.of(player, [strop.RankReduction(key, rank_fraction=0.25)], family=DECISION_TRANSFORMER)
    with strop.applied(player, recipe, family=DECISION_TRANSFORMER):
        edited = player.encoder.h[1].attn.c_attn.weight.detach().clone()
    np.testing.assert_allclose(edited[:, 16:32].T.numpy(), (u[:, :4] * s[:4]) @ vh[:4], atol=1e-6)
    assert torch.equal(edited[:, :16], before[:, :16])
    assert torch.equal(player.encoder.h[1].attn.c_attn.weight, before)


def test_the_search_returns_the_best_it_tried_and_leaves_the_model_alone(
    player: DecisionTransformerModel, episodes: list[Episode]
) -> None:
    before = {name: tensor.clone() for name, tensor in player.state_dict().items()}
    base = ActionScores.of(player, episodes, Sequences.of(episodes))
    anatomy, sequences = Anatomy.of(player, family=DECISION_TRANSFORMER), Sequences.of(episodes)
    best, tried = best_reduction(player, anatomy, lambda: ActionScores.of(player, episodes, sequences).merit)
    assert len(tried) == len({(str(reduction.site), reduction.rank((16, 16))) for reduction, _ in tried}) == 84
    merits = [merit for _, merit in tried]
    assert all(torch.equal(tensor, before[name]) for name, tensor in player.state_dict().items())
    if best is None:
        assert max(merits) <= base.merit
    else:
        assert {str(reduction): merit for reduction, merit in tried}[str(best)] == max(merits) > base.merit


def test_a_small_run_ends_with_figures_its_recipe_stands_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--small", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert f"chosen of {figures['tried']} on the select boards: {figures['choice']}" in printed
    accuracy = figures["test"]["accuracy of the next action"]
    assert accuracy["edited"] - accuracy["base"] == pytest.approx(accuracy["gain"])
    assert f"| accuracy of the next action | {accuracy['base']:.3f} | {accuracy['edited']:.3f} |" in printed
    model = DecisionTransformerModel.from_pretrained(tmp_path / "model").eval()
    test = draw_episodes(rooms=22, starts=2, size=4, boxes=1, walls=3, seed=0)[-12:]
    with strop.applied(model, strop.Recipe.load(tmp_path / "recipe"), family=DECISION_TRANSFORMER):
        scores = ActionScores.of(model, test, Sequences.of(test))
    assert accuracy["edited"] == pytest.approx(float(scores.correct.mean()))
    assert figures["test"]["loss, nats an action"]["edited"] == pytest.approx(float(scores.loss.mean()), abs=1e-6)


def test_gains_are_counted_by_room() -> None:
    episodes = draw_episodes(rooms=6, starts=2, size=4, boxes=1, walls=2, seed=3)
    count = sum(len(episode.actions) for episode in episodes)
    rooms = np.array([episode.room for episode in episodes for _ in episode.actions])

    def scores(right: bool) -> SimpleNamespace:
        actions = ActionScores(np.full(count, right), np.full(count, 1.0 - right), rooms)
        return SimpleNamespace(actions=actions, solved=np.full(12, right), returns=np.full(12, float(right)))

    found = measures_of(scores(False), scores(True), episodes)  # type: ignore[arg-type]
    assert {own["gain"] for own in found.values()} == {1.0}
    assert {round(own["p_value"], 5) for own in found.values()} == {round(2 / 2**6, 5)}  # six rooms, not twelve boards
