"""Blocks: locators, services, streaming fetch, cache."""
