"""Access: tokens and rights, browsers, proxies, administrative calls, rate limits, the audit log."""
