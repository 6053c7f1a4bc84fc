"""The kernel-free file system: inodes, handles and the nodes of the tree."""
