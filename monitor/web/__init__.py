"""HTTP: the server of the metrics, and who may read them."""
