"""Everything drawn, made from records alone."""
