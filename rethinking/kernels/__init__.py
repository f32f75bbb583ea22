"""Exact kernel interpolation: Gram matrices, their Cholesky factors over devices, certified solutions (section 5)."""
