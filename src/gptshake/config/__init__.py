"""Configuration before it becomes objects: composed, checked, explained."""
