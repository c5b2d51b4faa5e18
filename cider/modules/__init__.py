"""Network blocks: plain numbers and modules in, tensors out; no configuration, no device."""
