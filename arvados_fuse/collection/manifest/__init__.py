"""Manifests as texts: read into an index and listings, compared, and written line by line."""

from arvados_fuse.collection.manifest.index import ManifestIndex, stripped

__all__ = ["ManifestIndex", "stripped"]
