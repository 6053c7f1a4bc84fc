"""The embedded single-node Arvados: a real server for first runs, tests and benchmarks."""
