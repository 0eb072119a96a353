"""Tables, figures and the page, drawn from records alone: nothing here loads torch or a network."""
