"""The run record: directory, metrics, provenance, lease, trackers."""
