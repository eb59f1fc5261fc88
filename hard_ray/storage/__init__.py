"""The one room that opens remote files: objects in buckets, a cache of them, and folders kept at a URL."""
