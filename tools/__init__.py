"""Write and check the documents that follow from the code."""
