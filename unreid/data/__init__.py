"""Images without ids, their loaders and samplers, and the drawn data set."""
