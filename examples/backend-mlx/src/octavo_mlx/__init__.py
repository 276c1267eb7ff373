"""An Octavo backend on MLX."""
