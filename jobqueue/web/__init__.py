"""HTTP as operations: what a request means, whichever front read it. Knows an Engine, never which one."""
