"""The actor's albedo and the light, from frames that are solved."""
