"""The backend ``native``: compiled kernels over NumPy arrays; ``backends/cpu/kernels`` is theirs."""
