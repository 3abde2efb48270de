"""Where the runs of a study happen: slots of this machine."""
