"""The command line: `meshq`, built on `meshq.client`. See `docs/cli.md`."""
