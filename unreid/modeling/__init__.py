"""What methods share: a head without classifier, a memory model, ghost batch norm."""
