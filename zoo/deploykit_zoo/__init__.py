"""The example families: how each is trained, stored and measured. Importing this costs nothing."""
