"""A depthwise and a 1 x 1 convolution, added."""
