"""The calculators: enabled by the operator, asked by anybody, answered by somebody's machine."""
