"""How much can a network memorize, and what then makes it generalize? Zhang et al. (2016), run."""
