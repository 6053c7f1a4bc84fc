"""The data model of a collection: manifest index, directories, files as segments."""
