"""The nouns: rig, camera, plates, track, and the state of a face."""
