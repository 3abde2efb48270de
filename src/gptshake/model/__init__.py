"""The network and its text generation."""
