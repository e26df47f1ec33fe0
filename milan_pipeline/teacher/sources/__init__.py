"""Where a teacher's model comes from: open_clip, timm, or a run of ours."""
