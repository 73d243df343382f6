"""Read the structure of a model nobody has described, and check by forward passes what was concluded."""
