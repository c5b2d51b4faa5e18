"""One module per group of commands; heavy imports live inside their bodies."""
