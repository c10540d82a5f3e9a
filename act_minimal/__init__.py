"""Action Chunking with Transformers, from demonstrations to a moving arm."""
