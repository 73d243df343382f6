"""The shortest way to solve a board, and every action that is on one."""

import dataclasses
from collections import deque
from collections.abc import Iterator

from examples.sokoban.board import ACTIONS, Board


class Solution:
    """How many steps every position of a room is from being solved.

    A breadth-first search goes back from the positions that are solved, pulling boxes where play pushes them, so that it meets
    each position that can be solved, and no other.

    Args:
        board: of the room; where its boxes and its player are does not matter.

    >>> board = Board(3, frozenset(), goals=frozenset({(0, 2)}), boxes=frozenset({(0, 1)}), player=(1, 0))
    >>> Solution(board).actions(board)
    [0, 1]
    """

    def __init__(self, board: Board) -> None:
        self.steps: dict[Board, int] = dict.fromkeys(_solved(board), 0)
        """Of every position that can be solved, those nearest to the end first."""
        waiting = deque(self.steps)
        while waiting:
            after = waiting.popleft()
            for position in _before(after):
                if position not in self.steps:
                    self.steps[position] = self.steps[after] + 1
                    waiting.append(position)

    def best_actions(self, board: Board) -> tuple[int, ...]:
        """Return every action with which a shortest solution of a position goes on; none where it cannot be solved.

        Args:
            board: of this room.
        """
        left = self.steps.get(board)
        if not left:
            return ()
        return tuple(action for action in range(len(ACTIONS)) if self.steps.get(board.after(action)) == left - 1)

    def actions(self, board: Board) -> list[int]:
        """Return a shortest solution; of equals, at each step, the action that comes first.

        Args:
            board: of this room.

        Raises:
            ValueError: there is none.
        """
        if board not in self.steps:
            raise ValueError(f"This board has no solution:\n{board}")
        found: list[int] = []
        while not board.is_solved:
            found.append(self.best_actions(board)[0])
            board = board.after(found[-1])
        return found


def _solved(board: Board) -> Iterator[Board]:
    """Yield every solved position of a board's room."""
    for row in range(board.size):
        for column in range(board.size):
            cell = (row, column)
            if cell not in board.walls and cell not in board.goals:
                yield dataclasses.replace(board, boxes=board.goals, player=cell)


def _before(after: Board) -> Iterator[Board]:
    """Yield every position that one action turns into another."""
    row, column = after.player
    for down, across in ACTIONS:
        behind, ahead = (row - down, column - across), (row + down, column + across)
        if not after.is_open(behind) or behind in after.boxes:
            continue
        yield dataclasses.replace(after, player=behind)
        if ahead in after.boxes:
            yield dataclasses.replace(after, player=behind, boxes=after.boxes - {ahead} | {after.player})
