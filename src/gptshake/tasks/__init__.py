"""One thin file per task of the command line."""
