"""The door: command line to one running mount."""
