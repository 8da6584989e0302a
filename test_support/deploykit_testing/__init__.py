"""What the tests of several packages share: small graphs, networks, fake runners, harnesses."""
