"""Known mistakes in manifests for vLLM, found in files alone: nothing is asked of a cluster."""
