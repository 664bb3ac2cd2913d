"""What writes and checks the documents that code decides."""
