"""Text completions: what ``/v1/completions`` asks for, and its answer whole or as a stream."""
