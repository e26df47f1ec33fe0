"""Images that a table lists or holds: CSV, Parquet, Hugging Face `datasets` and img2dataset."""
