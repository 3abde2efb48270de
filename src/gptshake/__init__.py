"""gptshake: a bench on which small GPTs are trained from scratch, and their learning rate and batch size found.

Importing the package imports no heavy library.
"""

__version__ = "0.1.0"
