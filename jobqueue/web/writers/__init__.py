"""What is answered: JSON, text, pages, problems, and the document that describes it all."""
