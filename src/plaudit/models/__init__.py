"""Models: loading, heads, the packed forward pass, log-probabilities, adapters."""
