"""Training of the networks that ship inside the package; not part of the installed library."""
