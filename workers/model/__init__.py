"""The model that a block is trained in. Read `ends`, what stands around the blocks, and `model`,
then `parameters`, weights as an optimiser's variables, and `packed`, a block's weights as one
vector."""
