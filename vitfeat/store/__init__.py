"""The feature store: one Zarr group for one model, one dataset, one view."""
