"""One run: trained, evaluated, stored, looked up, compared, replayed, copied."""
