"""What the mount counts and tells about itself; a ground floor that any other may use."""
