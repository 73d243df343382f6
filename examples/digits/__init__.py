"""A Vision Transformer that reads handwritten digits, before and after LASER."""
