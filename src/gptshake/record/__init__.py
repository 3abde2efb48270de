"""The run record: directory, metrics, provenance, lock, trackers."""
