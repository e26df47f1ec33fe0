"""Studies: one YAML of images, teacher, students and measures -> runs, tables, plots, a page."""
