"""The research journal, made from records and kept in git beside what people write into it."""
