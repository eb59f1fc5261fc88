"""The verbs of the `hardray` command, one a file or two that belong together; `hard_ray_cli.main` registers them."""
