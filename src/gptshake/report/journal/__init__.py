"""The research journal: sections generated from records, kept in git beside what people write around them."""
