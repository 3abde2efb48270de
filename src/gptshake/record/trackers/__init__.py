"""Places that mirror the run record."""
