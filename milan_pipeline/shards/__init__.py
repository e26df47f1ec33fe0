"""WebDataset tars: manifest, index, write, read in order or at any place, local cache."""
