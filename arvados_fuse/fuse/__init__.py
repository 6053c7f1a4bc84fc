"""The kernel side: the only place that talks to llfuse."""
