"""Octavo CPU backend."""
