"""The file formats that flow fields are read from, one module each."""
