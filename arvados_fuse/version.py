"""The version of the package, read by packaging, `arv-mount --version` and the API user agent."""

__version__ = "4.0.0.dev1"
