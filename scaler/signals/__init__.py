"""What reads the world: metric pages, Prometheus, Kubernetes, DCGM."""
