"""Single intra-channel convolutions and channels that meet their neighbours on a grid."""
