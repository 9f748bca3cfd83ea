"""What `opd new` writes: small parts that work as they are, each with its YAML and test, copied under another name."""
