"""Measurements beside the stock SDK and arv-mount 3.2.1; run by `make bench`."""
