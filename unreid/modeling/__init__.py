"""Models shared by methods: a head without classifier, a memory model, ghost batch norm."""
