"""The renderer's steps in numba, for the CPU; each is held against its namesake in `reference`."""
