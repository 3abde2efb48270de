"""Config becomes objects here; below travel plain values only. In the order of a run: resolve, lifecycle, run; finders run before it."""
