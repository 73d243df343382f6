"""A Decision Transformer on a small Sokoban-like grid, before and after LASER."""
