"""Work handed to a Ray cluster: what is sent, who may send it, and whose turn it is."""
