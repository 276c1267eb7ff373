"""The backend ``native``: compiled kernels over NumPy arrays; their source is in kernels/."""
