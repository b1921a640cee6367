"""Person re-identification without labels, on fast-reid."""
