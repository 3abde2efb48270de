"""Pure arithmetic about a run: batches, steps, tokens, parameters, FLOPs, memory. No torch, no IO."""
