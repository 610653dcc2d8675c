"""Trace-driven simulation of a vLLM fleet with the whole KEDA and HPA chain."""
