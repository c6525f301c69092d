"""Readers of logged data, splits, fingerprints and scene generation."""
