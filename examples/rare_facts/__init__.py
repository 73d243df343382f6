"""A small world of frequent and rare facts, models that learned it from text, and what three methods find in them."""
