"""Wrong lines for the code of recipes and of devices, each of which a default test must notice.

`python -m tests.mutations [STAGE]` tries them; the table is one YAML file a stage. Whatever is
moved or reworded in the library has to follow there, which `test_table.py` reminds of.
"""
