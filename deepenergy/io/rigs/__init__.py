"""Rig files: glTF, ICT-FaceKit, npz, landmarks."""
