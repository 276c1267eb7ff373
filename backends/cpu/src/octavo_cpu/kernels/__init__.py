"""The loops of the NumPy backend, one op group a module."""
