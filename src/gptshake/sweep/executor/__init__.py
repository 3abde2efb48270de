"""Where the runs of a study happen: one protocol, slots of this machine."""
