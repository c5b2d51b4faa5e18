"""Evidence: finished runs beside the published numbers, and what choosing on test would add."""
