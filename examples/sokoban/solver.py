"""The shortest way to solve a board, and every action that is on one."""

from collections import defaultdict, deque
from collections.abc import Mapping

from examples.sokoban.board import ACTIONS, Board


class Solution:
    """How far every position that can be reached from a board is from being solved.

    A breadth-first search forward finds the positions, and one backward from those that are solved counts the steps.

    >>> board = Board(3, frozenset(), goals=frozenset({(0, 2)}), boxes=frozenset({(0, 1)}), player=(1, 0))
    >>> Solution(board).actions(board)
    [0, 1]
    """

    def __init__(self, board: Board) -> None:
        successors = _positions_from(board)
        self.steps = _steps_to_solved(successors)
        """Of every position that can be solved: how many are left, those nearest to the end first."""
        self._successors = successors

    def best_actions(self, board: Board) -> tuple[int, ...]:
        """Return every action with which a shortest solution of a position goes on; none where it cannot be solved.

        Args:
            board: that can be reached from the one this is about.
        """
        left = self.steps.get(board)
        if left is None:
            return ()
        following = self._successors[board]
        return tuple(action for action, after in enumerate(following) if self.steps.get(after) == left - 1)

    def actions(self, board: Board) -> list[int]:
        """Return a shortest solution; of equals, at each step, the action that comes first.

        Args:
            board: that can be reached from the one this is about.

        Raises:
            ValueError: there is none.
        """
        if board not in self.steps:
            raise ValueError(f"This board has no solution from here:\n{board}")
        found: list[int] = []
        while not board.is_solved:
            found.append(self.best_actions(board)[0])
            board = self._successors[board][found[-1]]
        return found


def _positions_from(board: Board) -> dict[Board, tuple[Board, ...]]:
    """Return what each action makes of every position that can be reached; a solved one goes nowhere."""
    found: dict[Board, tuple[Board, ...]] = {}
    waiting = deque([board])
    while waiting:
        position = waiting.popleft()
        if position in found:
            continue
        found[position] = () if position.is_solved else tuple(map(position.after, range(len(ACTIONS))))
        waiting.extend(found[position])
    return found


def _steps_to_solved(successors: Mapping[Board, tuple[Board, ...]]) -> dict[Board, int]:
    predecessors: defaultdict[Board, list[Board]] = defaultdict(list)
    for position, following in successors.items():
        for after in following:
            predecessors[after].append(position)
    steps = {position: 0 for position in successors if position.is_solved}
    waiting = deque(steps)
    while waiting:
        after = waiting.popleft()
        for position in predecessors[after]:
            if position not in steps:
                steps[position] = steps[after] + 1
                waiting.append(position)
    return steps
