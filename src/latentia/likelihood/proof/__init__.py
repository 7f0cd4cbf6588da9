"""Proven bounds of log p(x): what they assume and why they hold is in docs/exact.md.

rounding     bounds of what float64 loses
curves       lines that enclose a function of one variable
affine       affine bounds of many numbers over boxes of z
modules      bounds of networks, module by module; `register_bounds` for a module of your own
restriction  a network on one box, with few variables
likelihoods  log p(x|z) on tiles, of exponential families
per_pixel    the same, of normal pixels with a scale each
families     which likelihoods and priors can be bounded
priors       log p(z) on tiles, of normal priors, their mixtures and uniform ones
product_priors  the same, of Beta and gamma ones
masses       the mass of a tile between two bounds
search       which tiles to divide
enclosure    the two functions for users
"""
