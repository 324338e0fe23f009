"""What a request says: a struct for each call, checked against the limits of the settings."""
