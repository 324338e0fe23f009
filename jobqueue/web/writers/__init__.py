"""Writers: answers as JSON, text, pages and problem documents."""
