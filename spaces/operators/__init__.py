"""The vocabulary, one operator a file: adding an operator is adding a file here."""
