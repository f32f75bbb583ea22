"""Programs that measure speed; their results are in benchmarks/README.md."""
