"""The windows through which a network sees the same face several times (test-time augmentation).

Plain numbers: settings check their own against them before torch is imported.
"""

from __future__ import annotations

# (Shift in crop pixels x and y, scale); two pixels are half a heatmap pixel. Each is seen plain and mirrored.
WINDOW_CHANGES = ((0.0, 0.0, 1.0), (2.0, 2.0, 1.0), (-1.0, 1.0, 1.07), (1.0, -1.0, 0.95))
MOST_READINGS = 2 * len(WINDOW_CHANGES)
