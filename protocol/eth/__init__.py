"""The eth and snap protocols: messages and their layouts, Status, fork ids."""
