"""A small grid world after Sokoban: a player pushes boxes onto goals, and never pulls."""

import dataclasses

import numpy as np

Cell = tuple[int, int]
Room = tuple[tuple[Cell, ...], tuple[Cell, ...]]

ACTIONS: tuple[Cell, ...] = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left, as steps of row and column."""
STEP_REWARD = -0.1
ON_GOAL_REWARD = 1.0
SOLVED_REWARD = 10.0


@dataclasses.dataclass(frozen=True)
class Board:
    """One position: what never moves, and what does.

    Args:
        size: rows, and columns; beyond them all is wall.
        walls: cells nothing enters.
        goals: where the boxes are to be, as many as there are boxes.
        boxes: where they are.
        player: where the player is.

    Raises:
        ValueError: two things share a cell that cannot, or there are not as many goals as boxes.
    """

    size: int
    walls: frozenset[Cell]
    goals: frozenset[Cell]
    boxes: frozenset[Cell]
    player: Cell

    def __post_init__(self) -> None:
        if len(self.goals) != len(self.boxes):
            raise ValueError(f"A board with {len(self.boxes)} boxes has {len(self.goals)} goals; it needs as many.")
        if self.player in self.boxes or self.walls & (self.goals | self.boxes | {self.player}):
            raise ValueError("A board's walls, boxes and player each have cells of their own, and no goal is a wall.")

    @property
    def is_solved(self) -> bool:
        """Whether every box is on a goal."""
        return self.boxes == self.goals

    def after(self, action: int) -> "Board":
        """Return the position after a step; the same one where a wall, or a box that cannot move, is in the way.

        Args:
            action: an index of `ACTIONS`.

        >>> board = Board(3, frozenset(), goals=frozenset({(0, 2)}), boxes=frozenset({(0, 1)}), player=(0, 0))
        >>> board.after(1).is_solved, board.after(0) == board
        (True, True)
        """
        down, across = ACTIONS[action]
        target = (self.player[0] + down, self.player[1] + across)
        if not self.is_open(target):
            return self
        boxes = self.boxes
        if target in boxes:
            beyond = (target[0] + down, target[1] + across)
            if not self.is_open(beyond) or beyond in boxes:
                return self
            boxes = boxes - {target} | {beyond}
        return dataclasses.replace(self, boxes=boxes, player=target)

    def is_open(self, cell: Cell) -> bool:
        """Whether a cell is on the board and no wall."""
        return 0 <= cell[0] < self.size and 0 <= cell[1] < self.size and cell not in self.walls

    def reward_of(self, after: "Board") -> float:
        """Return what a step from here to there is worth: less for each step, more for each box it brings to a goal."""
        gained = len(after.boxes & self.goals) - len(self.boxes & self.goals)
        return STEP_REWARD + ON_GOAL_REWARD * gained + (SOLVED_REWARD if after.is_solved else 0.0)

    def room(self) -> Room:
        """Return the walls and goals, the same for all rotations and reflections of them.

        >>> left = Board(3, frozenset({(0, 0)}), frozenset({(1, 2)}), frozenset({(2, 1)}), player=(2, 2))
        >>> right = Board(3, frozenset({(0, 2)}), frozenset({(1, 0)}), frozenset({(1, 1)}), player=(0, 0))
        >>> left.room() == right.room()
        True
        """
        last = self.size - 1

        def turned(cells: frozenset[Cell], *, quarters: int, mirrored: bool) -> tuple[Cell, ...]:
            placed = [(column, row) if mirrored else (row, column) for row, column in cells]
            for _ in range(quarters):
                placed = [(column, last - row) for row, column in placed]
            return tuple(sorted(placed))

        ways = [(quarters, mirrored) for quarters in range(4) for mirrored in (False, True)]
        return min(
            (turned(self.walls, quarters=q, mirrored=m), turned(self.goals, quarters=q, mirrored=m)) for q, m in ways
        )

    def __str__(self) -> str:
        """Draw it in Sokoban's own signs: # wall, $ box, . goal, * box on a goal, @ player, + player on a goal."""
        return "\n".join("".join(self._sign((row, column)) for column in range(self.size)) for row in range(self.size))

    def _sign(self, cell: Cell) -> str:
        if cell in self.walls:
            return "#"
        on_goal = cell in self.goals
        if cell in self.boxes:
            return "*" if on_goal else "$"
        if cell == self.player:
            return "+" if on_goal else "@"
        return "." if on_goal else " "


def random_board(generator: np.random.Generator, *, size: int, boxes: int, walls: int) -> Board:
    """Return a board whose things lie anywhere; it need not have a solution.

    Args:
        generator: of the places.
        size: rows, and columns.
        boxes: how many, and how many goals.
        walls: how many inner ones.
    """
    drawn = generator.permutation(size * size)[: walls + 2 * boxes + 1]
    cells = [(int(cell) // size, int(cell) % size) for cell in drawn]
    first, second = walls + boxes, walls + 2 * boxes
    return Board(
        size,
        walls=frozenset(cells[:walls]),
        goals=frozenset(cells[walls:first]),
        boxes=frozenset(cells[first:second]),
        player=cells[second],
    )
