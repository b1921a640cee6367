"""Images without ids, their loaders and samplers, and the synthetic dataset."""
