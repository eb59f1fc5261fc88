"""The manifests that `hardray deploy render` starts from."""
