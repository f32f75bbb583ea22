"""Exact kernel interpolation by a Cholesky factorization on one or many devices (section 5)."""
