"""The embedded demonstration: a simulated fleet, and a stand-in for KEDA and the HPA."""
