"""What carries questions in and answers out: gRPC and HTTP. A transport carries bytes and decides nothing."""
