"""The handlers of users' commands, by what the commands are about. They stand above the rooms whose parts they use."""
