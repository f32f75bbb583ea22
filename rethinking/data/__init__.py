"""Examples: whole sets in memory (arrays), their preparation (prepare), and what the network sees of them (images)."""
