"""Networks: shortcuts → blocks → resnet, vgg, mlp → zoo, each in one short file."""
