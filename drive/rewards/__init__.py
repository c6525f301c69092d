"""Rewards made of metrics."""
