"""Public test problems of nonlinear least squares, in torch, batched: NIST StRD and More-Garbow-Hillstrom."""
