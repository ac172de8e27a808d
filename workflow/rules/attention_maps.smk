# Attention maps of chosen images.
