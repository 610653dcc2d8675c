"""What answers the world: loop, gRPC, HTTP, records, replication."""
