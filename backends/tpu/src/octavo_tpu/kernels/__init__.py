"""Pallas kernels for TPUs: the layout of caches, writes to them, and ragged paged attention."""
