"""What comes from disk is read here with suspicion: it is what it should be, or an error that names
the file and says why; nothing in it is run, and it takes no more memory than its size allows."""
