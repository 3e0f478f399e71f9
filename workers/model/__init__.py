"""The model that a block is trained in. Read `shape`, names and shapes of weights, `ends`, what is
around the blocks, and `model`, then `parameters`, weights as an optimiser's variables, and
`packed`, a block's weights as one vector. `compiled` runs a model outside an engine."""
