"""Every call to the Arvados API server, typed."""
