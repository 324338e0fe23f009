"""Who may do what: access tokens, browsers, proxies, administrators, and how often."""
