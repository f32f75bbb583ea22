"""Reproduces Zhang et al. (2016): how much networks memorize, and what makes them generalize."""
