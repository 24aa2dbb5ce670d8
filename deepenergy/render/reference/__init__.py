"""The renderer's steps in torch: they run on any device, and are what the compiled ones are compared with."""
