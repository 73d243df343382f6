"""Strop beyond the usual: small worlds of our own, models trained on them in minutes, and what the methods find there."""
