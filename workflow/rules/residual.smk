# What skip connections carry beside the branches.
