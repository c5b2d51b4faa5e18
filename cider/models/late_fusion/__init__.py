"""The smallest model: mean features per modality, fused by one layer. The template to copy."""
