"""A network in one page: what a browser computes, and the page itself."""
