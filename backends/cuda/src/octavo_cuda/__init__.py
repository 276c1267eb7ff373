"""Octavo on NVIDIA GPUs."""
