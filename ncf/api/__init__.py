"""The names that ``import ncf`` offers: registration of images in memory, the MONAI transform, and saved results."""
