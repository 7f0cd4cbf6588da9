"""Peers, each written anew from its description, each a script that trains the same VAE and prints what it took."""
