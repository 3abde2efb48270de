"""Sweeps: from ranges to an answer, by runs in processes of their own."""
