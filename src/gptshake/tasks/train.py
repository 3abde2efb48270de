"""``task=train``: train a model, the default task."""

from gptshake.assemble import train as run

__all__ = ["run"]
