"""Octavo on JAX: TPUs and every other PJRT device, and the CPU when asked."""
