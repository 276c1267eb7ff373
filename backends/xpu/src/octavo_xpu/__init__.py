"""Octavo on Intel GPUs."""
