"""What ties frames together: optical flow between plates, infill of failed frames, temporal refinement (section 7)."""
