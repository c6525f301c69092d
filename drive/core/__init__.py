"""Data types, frames and geometry, protocols, errors, seeds: the floor every other room stands on."""
