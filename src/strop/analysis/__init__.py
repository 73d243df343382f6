"""Typed tables about weights, answers and runs."""

from strop.analysis.matrices import MatrixRow, describe_matrices

__all__ = ["MatrixRow", "describe_matrices"]
