"""Whatever --encoder names, frozen or to be trained further."""
