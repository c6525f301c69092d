"""Training stages: one readable file each."""
