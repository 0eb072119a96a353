"""Results as plain data: read without torch, and all that is printed or drawn comes from them."""
