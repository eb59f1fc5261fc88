"""The verbs of the `hardray` command, one a file; `hard_ray_cli.main` registers them."""
