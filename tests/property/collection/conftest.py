"""Settings of the random tests: a busy machine is no failure; `HYPOTHESIS_PROFILE=deep` looks longer."""

import os

from hypothesis import settings

settings.register_profile("collection", deadline=None)
settings.register_profile("deep", deadline=None, max_examples=3000)
settings.load_profile("deep" if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else "collection")
