"""Config becomes objects here; below travel plain values only. In the order of a run: resolve, lifecycle, run; finders run before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptshake.context import Context
    from gptshake.data.store import TokenStore
    from gptshake.estimate.budget import Budget


def open_store(context: Context) -> TokenStore:
    """The token store of a run; one that is resumed keeps its own tokenizer. Imported late: tasks that only read records need no numpy."""
    from gptshake.setup.resolve import token_store

    return token_store(context.config, context.lines, context.spec.path / "tokenizer" if context.spec.resumes else None)


def make_plan(context: Context) -> Budget:
    from gptshake.setup.resolve import resolve

    return resolve(context.config, context.store)
