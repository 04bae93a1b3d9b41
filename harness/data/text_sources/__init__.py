"""Sources of text: their files, documents, hashes and samples."""
