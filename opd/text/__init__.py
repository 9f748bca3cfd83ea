"""Between text and token ids: templates, the bytes of tokens, whether two vocabularies agree."""
