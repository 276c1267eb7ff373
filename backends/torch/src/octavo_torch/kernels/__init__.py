"""Triton kernels, one to a file, and what chooses their launch options."""
