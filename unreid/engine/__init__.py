"""Run a training from a config: extraction, label step, training, checkpoints, results."""
