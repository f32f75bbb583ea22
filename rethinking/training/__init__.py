"""Training a network on arrays that live on the device, and measuring what it memorized."""
