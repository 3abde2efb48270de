"""Parameters of a class or function by its dotted name, read from its source: nothing is imported, so a mistake is found at once."""

import ast
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path


@lru_cache
def parameters(target: str) -> frozenset[str] | None:
    """Names of the parameters of a module's own class or function; None where the source does not say them all."""
    module, _, name = target.rpartition(".")
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    place = Path(next(iter(spec.submodule_search_locations)), *rest)
    file = next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
    tree = ast.parse(file.read_text(encoding="utf-8")) if file else ast.Module([], [])
    kinds = (ast.ClassDef, ast.FunctionDef)
    node = next((node for node in tree.body if isinstance(node, kinds) and node.name == name), None)
    if isinstance(node, ast.ClassDef):
        init = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        if init is None:
            fields = [one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
            return frozenset(fields if node.decorator_list else ())
        node = init
    if node is None or node.args.kwarg:
        return None
    return frozenset(argument.arg for argument in (*node.args.args, *node.args.kwonlyargs))
