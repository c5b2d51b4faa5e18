"""Searches: what is tried next, by whom, where it is kept, and what came of it."""
