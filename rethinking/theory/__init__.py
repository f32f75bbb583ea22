"""What the paper proves, as programs: finite-sample expressivity (section 4) and linear models (section 5)."""
