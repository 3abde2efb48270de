"""What happens beside the training step, one thing a file."""
