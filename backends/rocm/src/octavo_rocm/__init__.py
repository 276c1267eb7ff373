"""Octavo on AMD GPUs."""
