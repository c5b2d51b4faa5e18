"""Feature files, the Arrow store, synthetic corpora and what is computed from a training split."""
