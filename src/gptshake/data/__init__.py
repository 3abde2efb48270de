"""From documents to batches: sources, cleaning, token store, blocks, Lightning data module."""
