"""The engine adds time, waiting and durability to the core. The layers above it use `engine.api` only."""
