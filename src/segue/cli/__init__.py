"""The command `segue`: one short file a verb, which parses, calls the library and prints."""
