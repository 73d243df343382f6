"""Boards that can be solved, and their shortest solutions as a Decision Transformer reads them."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from examples.sokoban.board import ACTIONS, SOLVED_REWARD, Board, Room, random_board
from examples.sokoban.solver import Solution

SHORTEST, LONGEST = 4, 16
"""Steps of the solutions that are kept, and as many are played at most."""
NO_ACTION = -100
"""In the place of an action where an episode is over, as cross-entropy passes over it."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """One board solved in as few steps as can be."""

    room: int
    """Boards of one room share walls and goals: they are no independent evidence, and lie in one split."""
    positions: tuple[Board, ...]
    """From the first to the one before the last action."""
    actions: tuple[int, ...]
    best: tuple[tuple[int, ...], ...]
    """At each position every action that is on a shortest solution."""
    rewards: tuple[float, ...]

    @property
    def board(self) -> Board:
        """Where it begins."""
        return self.positions[0]


def draw_episodes(*, rooms: int, starts: int, size: int, boxes: int, walls: int, seed: int) -> list[Episode]:
    """Return episodes room by room; no room is a rotation or reflection of another.

    Args:
        rooms: how many.
        starts: episodes of a room, each with the boxes and the player elsewhere.
        size: rows, and columns.
        boxes: of a board.
        walls: inner ones of a board.
        seed: of the boards.
    """
    generator = np.random.default_rng(seed)
    seen: set[Room] = set()
    found: list[Episode] = []
    while len(seen) < rooms:
        board = random_board(generator, size=size, boxes=boxes, walls=walls)
        if board.room() in seen:
            continue
        solution = Solution(board)
        fitting = [position for position, steps in solution.steps.items() if SHORTEST <= steps <= LONGEST]
        if len(fitting) >= starts:
            chosen = generator.choice(len(fitting), size=starts, replace=False)
            found += [_episode(len(seen), solution, fitting[index]) for index in chosen]
            seen.add(board.room())
    return found


def _episode(room: int, solution: Solution, start: Board) -> Episode:
    actions = solution.actions(start)
    positions = [start]
    for action in actions:
        positions.append(positions[-1].after(action))
    rewards = tuple(before.reward_of(after) for before, after in itertools.pairwise(positions))
    best = tuple(map(solution.best_actions, positions[:-1]))
    return Episode(room, tuple(positions[:-1]), tuple(actions), best, rewards)


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """What the model reads of several episodes, each padded on the right."""

    states: Tensor
    """(episodes, steps, 4 · size²): a plane each of walls, goals, boxes and the player."""
    actions: Tensor
    """(episodes, steps) int64, `NO_ACTION` where an episode is over."""
    returns_to_go: Tensor
    """(episodes, steps, 1): what is still to be won, over the reward of a solved board."""

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> "Sequences":
        """Return the sequences of episodes, in their order."""
        states = torch.zeros(len(episodes), LONGEST, state_of(episodes[0].board).numel())
        actions = torch.full((len(episodes), LONGEST), NO_ACTION)
        to_go = torch.zeros(len(episodes), LONGEST, 1)
        for row, episode in enumerate(episodes):
            count = len(episode.actions)
            states[row, :count] = torch.stack([state_of(position) for position in episode.positions])
            actions[row, :count] = torch.tensor(episode.actions)
            left = np.cumsum(episode.rewards[::-1])[::-1] / SOLVED_REWARD
            to_go[row, :count, 0] = torch.from_numpy(left.copy())
        return cls(states, actions, to_go)

    def rows(self, index: Tensor) -> "Sequences":
        """Return some of them, as many steps wide as they need."""
        actions = self.actions[index]
        width = int((actions != NO_ACTION).sum(1).max())
        return Sequences(self.states[index, :width], actions[:, :width], self.returns_to_go[index, :width])

    @property
    def model_inputs(self) -> dict[str, Tensor]:
        """What `DecisionTransformerModel` is called with."""
        batch, steps = self.actions.shape
        done = torch.nn.functional.one_hot(self.actions.clamp(min=0), len(ACTIONS)).float()
        return {
            "states": self.states,
            "actions": done * (self.actions != NO_ACTION)[..., None],
            "returns_to_go": self.returns_to_go,
            "timesteps": torch.arange(steps).expand(batch, -1),
            "attention_mask": (self.actions != NO_ACTION).long(),
        }


def state_of(board: Board) -> Tensor:
    """Return (4 · size²,): for each cell whether it is a wall, a goal, holds a box, and holds the player."""
    planes = torch.zeros(4, board.size, board.size)
    for plane, cells in zip(planes, (board.walls, board.goals, board.boxes, {board.player}), strict=True):
        for row, column in cells:
            plane[row, column] = 1.0
    return planes.flatten()
