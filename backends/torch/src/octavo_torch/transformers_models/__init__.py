"""Causal models of the transformers library on Octavo's paged attention."""
