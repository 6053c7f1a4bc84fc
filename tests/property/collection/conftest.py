"""Settings of the random tests: a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("collection", deadline=None)
settings.load_profile("collection")
