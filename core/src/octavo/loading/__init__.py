"""Loading checkpoints: safetensors, GGUF or random weights, from a file, a folder or the hub."""

from octavo.loading.checkpoint import Checkpoint, LoadFormat, open_checkpoint
from octavo.loading.progress import LoadProgress, load_progress
from octavo.loading.tensors import QuantizedTensor, ShapelessSource, TensorSource
from octavo.loading.tokenizer_source import GGUFMetadata, TokenizerSource

__all__ = [
    "Checkpoint",
    "GGUFMetadata",
    "LoadFormat",
    "LoadProgress",
    "QuantizedTensor",
    "ShapelessSource",
    "TensorSource",
    "TokenizerSource",
    "load_progress",
    "open_checkpoint",
]
