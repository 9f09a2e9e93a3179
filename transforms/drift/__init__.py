"""Whether a model still fits: inputs compared with its reference, answers with labels that come back."""
