"""The only code that speaks to MongoDB: one file a collection."""
