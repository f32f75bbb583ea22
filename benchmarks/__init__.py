"""Programs behind the README's claims of speed; benchmarks/README.md has what they measured."""
