"""Where Hydra finds gptshake's sweeper; the work is done in ``gptshake.sweep``."""
