"""The data model of a collection: manifest index, directories, files as segments."""

from arvados_fuse.collection.collection import Collection, CollectionReader
from arvados_fuse.collection.directory import Directory
from arvados_fuse.collection.file import File
from arvados_fuse.collection.manifest.hashes import portable_data_hash

__all__ = ["Collection", "CollectionReader", "Directory", "File", "portable_data_hash"]
