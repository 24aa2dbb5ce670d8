"""Readers and writers of the nouns, registered by file ending; their libraries load on first use."""

from deepenergy.runtime.registry import register

register("read rig", (".glb", ".gltf"), "deepenergy.io.rigs.gltf:read_rig")
register("read rig", (".npz",), "deepenergy.io.rigs.rig_npz:read_rig")
register("read rig", ("/",), "deepenergy.io.rigs.ict_facekit:read_rig")
register("read rig", (".builtin",), "deepenergy.builtin_head.head:builtin_head")
register("write rig", (".npz",), "deepenergy.io.rigs.rig_npz:write_rig")
register("read landmarks", (".json",), "deepenergy.io.rigs.landmarks_json:read_landmarks")
register("read camera", (".json",), "deepenergy.io.cameras.camera_json:read_camera")
register("read track", (".npz",), "deepenergy.io.tracks.track_npz:read_track")
register("write track", (".npz",), "deepenergy.io.tracks.track_npz:write_track")
register("write track", (".csv",), "deepenergy.io.tracks.track_csv:write_track")
register(
    "read plates",
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", "/"),
    "deepenergy.io.plates.image_sequence:open_image_sequence",
)
register("read plates", (".mp4", ".mov", ".m4v", ".avi", ".mkv"), "deepenergy.io.plates.video:open_video")
# Every text ends with the empty ending: there is one vocabulary of frame ranges.
register("parse frames", ("",), "deepenergy.io.plates.frame_range:parse_frames")
