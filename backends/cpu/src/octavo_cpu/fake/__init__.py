"""The fake device: for tests of what runs around a model, without an accelerator."""
