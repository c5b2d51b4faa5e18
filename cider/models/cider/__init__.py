"""CIDer, the Causal Inference Distiller (arXiv 2506.10452)."""
