"""``task=train``: train a model, the default task."""

from gptshake.setup.run import train as run

__all__ = ["run"]
